//! Dumb mirrors of the Avro records, field for field. Struct and variant names are the schema's names.

#![expect(missing_docs, reason = "the schemas document every field; a second text would drift")]

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryCommand {
    pub command_id: String,
    pub request_id: String,
    pub tenant: String,
    pub issued_at: i64,
    pub source: Option<Source>,
    pub body: CommandBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub log_time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandBody {
    Reserve(Reserve),
    Confirm(Confirm),
    Cancel(Cancel),
    Extend(Extend),
    Release(Release),
    AdjustStock(AdjustStock),
    ConfigureSku(ConfigureSku),
    BeginPayment(BeginPayment),
    AbortPayment(AbortPayment),
    Ship(Ship),
    Unallocate(Unallocate),
    ReturnStock(ReturnStock),
    RequireRefund(RequireRefund),
    Relay(Relay),
    RelayDone(RelayDone),
    RelayFailed(RelayFailed),
    Settle(Settle),
    Undo(Undo),
    ShipPart(ShipPart),
    UnallocatePart(UnallocatePart),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    pub hold_id: String,
    pub attempt: i64,
    pub lane: i32,
    pub user_id: String,
    pub relay_until: i64,
    pub cart: Vec<CartLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDone {
    pub hold_id: String,
    pub attempt: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayFailed {
    pub hold_id: String,
    pub attempt: i64,
    pub reason: String,
    pub shortages: Vec<Shortage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    pub hold_id: String,
    pub attempt: i64,
    pub lane: i32,
    pub relay_until: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub hold_id: String,
    pub attempt: i64,
    pub lane: i32,
    pub relay_until: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipPart {
    pub hold_id: String,
    pub attempt: i64,
    pub lane: i32,
    pub relay_until: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnallocatePart {
    pub hold_id: String,
    pub attempt: i64,
    pub lane: i32,
    pub relay_until: i64,
}

/// Branches of the command's `body` union that this version reads.
pub const COMMAND_BODIES: [&str; 20] = [
    "Reserve",
    "Confirm",
    "Cancel",
    "Extend",
    "Release",
    "AdjustStock",
    "ConfigureSku",
    "BeginPayment",
    "AbortPayment",
    "Ship",
    "Unallocate",
    "ReturnStock",
    "RequireRefund",
    "Relay",
    "RelayDone",
    "RelayFailed",
    "Settle",
    "Undo",
    "ShipPart",
    "UnallocatePart",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    pub idempotency_key: String,
    pub user_id: String,
    pub lines: Vec<ReserveLine>,
    pub ttl_ms: Option<i64>,
    pub policy: String,
    pub external_ref: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveLine {
    pub sku: String,
    pub quantity: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    pub hold_id: String,
    pub payment_ref: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub hold_id: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extend {
    pub hold_id: String,
    pub ttl_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub hold_id: String,
    pub attempt: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustStock {
    pub sku: String,
    pub change: Option<i64>,
    pub set: Option<i64>,
    pub expected_on_hand: Option<i64>,
    pub reason: String,
    pub reference: Option<String>,
    pub actor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureSku {
    pub sku: String,
    pub safety_stock: i64,
    pub max_per_user: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginPayment {
    pub hold_id: String,
    pub payment_ref: String,
    pub cap_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortPayment {
    pub hold_id: String,
    pub payment_ref: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ship {
    pub hold_id: String,
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unallocate {
    pub hold_id: String,
    pub reason: String,
    pub actor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnStock {
    pub sku: String,
    pub quantity: i64,
    pub hold_id: Option<String>,
    pub reason: String,
    pub reference: Option<String>,
    pub actor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequireRefund {
    pub hold_id: String,
    pub payment_ref: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEvent {
    pub event_id: String,
    pub request_id: String,
    pub epoch: i64,
    pub command_offset: i64,
    pub previous_command_offset: i64,
    pub command_id: String,
    pub tenant: String,
    pub hold_id: Option<String>,
    pub decided_at: i64,
    pub source: Option<Source>,
    pub hold: Option<HoldTerms>,
    pub part: Option<PartTerms>,
    pub lines: Vec<EventLine>,
    pub body: EventBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTerms {
    pub attempt: i64,
    pub state: String,
    pub user_id: String,
    pub idempotency_key: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
    pub created_at: i64,
    pub expires_at: i64,
    pub changed_at: i64,
    pub policy: String,
    pub external_ref: Option<String>,
    pub payment_ref: Option<String>,
    pub reason: Option<String>,
    pub remaining_ms: Option<i64>,
    pub cart: Option<Cart>,
    pub asked: Vec<AskedLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    pub relay_until: i64,
    pub ttl_ms: i64,
    pub lines: Vec<CartLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartLine {
    pub lane: i32,
    pub sku: String,
    pub quantity: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedLine {
    pub sku: String,
    pub quantity: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTerms {
    pub attempt: i64,
    pub state: String,
    pub user_id: Option<String>,
    pub relay_until: i64,
    pub changed_at: i64,
    pub cart: Vec<CartLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    pub sku: String,
    pub quantity: i64,
    pub counted: i64,
    pub on_hand: i64,
    pub held: i64,
    pub allocated: i64,
    pub sku_version: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventBody {
    LaneOpened(LaneOpened),
    HoldCreated,
    HoldRejected(HoldRejected),
    HoldConfirmed,
    HoldCancelled,
    HoldExpired,
    HoldExtended(HoldExtended),
    HoldReplayed,
    StockAdjusted(StockAdjusted),
    StockReplayed,
    SkuConfigured(SkuConfigured),
    CommandForwarded(CommandForwarded),
    OffsetsSkipped,
    CommandRefused(CommandRefused),
    PaymentBegun,
    PaymentAborted(PaymentAborted),
    HoldShipped(HoldShipped),
    HoldUnallocated(HoldUnallocated),
    StockReturned(StockReturned),
    RefundRequired(RefundRequired),
    HoldPending,
    PartHeld,
    PartRefused(PartRefused),
    PartSettled,
    PartUndone,
    PartShipped,
    PartUnallocated,
    RelayIgnored,
}

/// Branches of the event's `body` union that this version reads.
pub const EVENT_BODIES: [&str; 28] = [
    "LaneOpened",
    "HoldCreated",
    "HoldRejected",
    "HoldConfirmed",
    "HoldCancelled",
    "HoldExpired",
    "HoldExtended",
    "HoldReplayed",
    "StockAdjusted",
    "StockReplayed",
    "SkuConfigured",
    "CommandForwarded",
    "OffsetsSkipped",
    "CommandRefused",
    "PaymentBegun",
    "PaymentAborted",
    "HoldShipped",
    "HoldUnallocated",
    "StockReturned",
    "RefundRequired",
    "HoldPending",
    "PartHeld",
    "PartRefused",
    "PartSettled",
    "PartUndone",
    "PartShipped",
    "PartUnallocated",
    "RelayIgnored",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOpened {
    pub nonce: String,
    pub owner: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRejected {
    pub reason: String,
    pub shortages: Vec<Shortage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    pub sku: String,
    pub requested: i64,
    pub available: i64,
    pub retry: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRefused {
    pub reason: String,
    pub shortages: Vec<Shortage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldExtended {
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockAdjusted {
    pub change: i64,
    pub reason: String,
    pub reference: Option<String>,
    pub actor: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkuConfigured {
    pub safety_stock: i64,
    pub max_per_user: Option<i64>,
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandForwarded {
    pub to_lane: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRefused {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAborted {
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldShipped {
    pub reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldUnallocated {
    pub reason: String,
    pub actor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReturned {
    pub quantity: i64,
    pub hold_id: Option<String>,
    pub reason: String,
    pub reference: Option<String>,
    pub actor: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundRequired {
    pub payment_ref: String,
    pub reason: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub fingerprint: Vec<u8>,
}
