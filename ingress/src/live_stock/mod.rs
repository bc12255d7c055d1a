//! Live stock: what is left of a SKU, pushed to whoever watches it.
//!
//! In     the tail's word that a SKU has changed; its counters from the memory, completed by Postgres.
//! Out    `GET /v1/stock/{sku}/live` (server-sent events, one SKU), `GET /v1/live` (a WebSocket with rooms).
//! Owns   the rooms.
//!
//! ```text
//! rooms    who watches which SKU, at most ten updates a second each, always the last state in the end
//! stream   one SKU as server-sent events        socket   up to a hundred SKUs over one WebSocket
//! viewers  how many there may be                origin   which pages may watch
//! ```

mod origin;
mod rooms;
mod socket;
mod stream;
mod viewers;

pub use origin::Origin;
pub use rooms::Rooms;
pub use socket::{__path_watch, watch};
pub use stream::{__path_watch_sku, watch_sku};
pub use viewers::Viewers;
