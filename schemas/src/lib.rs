//! What processes agree on: Avro schemas, topics, record headers, Redis keys, and the one conversion each way between
//! records and the domain.
//!
//! Records are dumb mirrors of bytes (`records`); `convert` turns them into domain values, or says why not. `codec`
//! frames and encodes them; `registry` knows which schema an id means.

pub mod cells;
pub mod codec;
pub mod convert;
pub mod headers;
pub mod keys;
pub mod picture;
pub mod records;
pub mod registry;
pub mod sender;
pub mod topics;

pub use codec::{Codec, DecodeError};
pub use headers::EventHeaders;
pub use registry::Registry;
pub use topics::{Topic, Topics};
