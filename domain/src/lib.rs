//! What stock means: ids, the hold's state machine, stock arithmetic, and the fold of a lane's log.
//!
//! No I/O, no async, no clock and no randomness: time, ids and offsets are arguments. Every other crate builds on this
//! one; this one knows none of them.

pub mod cart;
pub mod command;
pub mod event;
pub mod fingerprint;
pub mod fold;
pub mod hold;
pub mod ids;
pub mod lane;
pub mod ledger;
pub mod limits;
pub mod order;
pub mod payment;
pub mod refusal;
pub mod relay;
pub mod request;
pub mod stock;
pub mod values;

pub use cart::{Cart, CartLine, PartId, PartState, PartStep, PartTerms};
pub use command::{Adjustment, Command, CommandBody, Policy, Reserve, Source};
pub use event::{Event, EventBody, EventLine, HoldTerms, Shortage};
pub use fingerprint::Fingerprint;
pub use fold::{LaneState, Stamp, Verdict};
pub use hold::{HoldState, Payment};
pub use ids::{EventId, HoldId};
pub use lane::Lane;
pub use ledger::{Contradiction, Ledger};
pub use order::{OrderState, OrderStep};
pub use refusal::Reason;
pub use request::RequestMark;
pub use stock::{SkuPolicy, Stock};
pub use values::{Invalid, Key, Line, Lines, Millis, Quantity, Sku, Tenant, Text, UserId};
