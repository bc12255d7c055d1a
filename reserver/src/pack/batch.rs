//! A batch as `apply` unpacks it, and a rebuild's chunk as `load.lua` does.

use domain::{
    Adjustment, CartLine, Command, CommandBody, Fingerprint, HoldId, Lane, PartId, PartStep, Policy, Reserve, Source,
    Tenant, Text,
};
use rmp::encode::{write_array_len, write_bin, write_bool, write_sint, write_str, write_str_len};
use schemas::cells;

use super::{Asked, Entry, Rules, default_tenant, fingerprint_of};

struct Writer(Vec<u8>);

impl Writer {
    fn array(&mut self, len: usize) {
        write_array_len(&mut self.0, u32::try_from(len).expect("batches are small")).expect("a Vec takes all");
    }

    fn text(&mut self, text: &str) {
        write_str(&mut self.0, text).expect("a Vec takes all");
    }

    /// Redis' `cmsgpack` knows no binary type, so bytes go as strings, whatever they are.
    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a value is shorter than 4 GiB");
        write_str_len(&mut self.0, length).expect("a Vec takes all");
        self.0.extend_from_slice(bytes);
    }

    /// As Redis has it: 16 bytes.
    fn hold(&mut self, hold_id: HoldId) {
        self.bytes(&hold_id.bytes());
    }

    fn number(&mut self, number: i64) {
        write_sint(&mut self.0, number).expect("a Vec takes all");
    }
}

/// Packs a batch for `apply`: the record before it, its commands, and read-back offsets to trim from the journal.
#[must_use]
pub fn batch(lane: Lane, entries: &[Entry], trim: &[i64], busy: bool, rules: Rules) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(256 * entries.len() + 64));
    out.array(9);
    out.number(entries.first().map_or(-1, |entry| entry.previous));
    out.array(entries.len());
    for entry in entries {
        pack_entry(&mut out, lane, entry, rules);
    }
    out.array(trim.len());
    for offset in trim {
        // A journal field: Lua hands it to HDEL as it is.
        out.text(&offset.to_string());
    }
    write_bool(&mut out.0, busy).expect("a Vec takes all");
    out.number(rules.remember_ms);
    out.number(rules.max_hold_ms);
    out.number(rules.relay_ms);
    out.array(entries.len());
    for entry in entries {
        match super::request_of(&entry.asked) {
            Some(mark) => out.bytes(&mark.bytes()),
            None => out.text(""),
        }
    }
    out.number(rules.request_ms);
    out.0
}

/// Packs the writes of a rebuild's chunk for `load.lua`: each a command's name and arguments.
#[must_use]
pub fn writes(writes: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(256 * writes.len()));
    out.array(writes.len());
    for parts in writes {
        out.array(parts.len());
        for part in parts {
            out.bytes(part);
        }
    }
    out.0
}

/// Packs an entry of the forget list: log time when to forget, and the key's end.
#[must_use]
pub fn forget(at: i64, name: &[u8]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(64));
    out.array(2);
    out.number(at);
    out.bytes(name);
    out.0
}

fn pack_entry(out: &mut Writer, lane: Lane, entry: &Entry, rules: Rules) {
    match &entry.asked {
        Asked::Command(command) => pack_command(out, lane, entry, command, rules),
        Asked::Misrouted(command, to_lane) => {
            head(out, entry, "forward", &command.tenant, None, 1);
            out.number(i64::from(to_lane.number()));
        }
        Asked::Refused { reason, .. } => {
            head(out, entry, "refuse", &default_tenant(), None, 1);
            out.text(reason.code());
        }
        Asked::Skip => head(out, entry, "skip", &default_tenant(), None, 0),
    }
}

fn head(out: &mut Writer, entry: &Entry, kind: &str, tenant: &Tenant, source: Option<&Source>, rest: usize) {
    out.array(7 + rest);
    out.text(kind);
    out.number(entry.offset);
    out.number(entry.timestamp);
    out.number(entry.hash);
    out.text(tenant.as_str());
    match source {
        Some(source) => {
            out.text(&format!("{}/{}/{}", source.topic, source.partition, source.offset));
            out.number(source.log_time);
        }
        None => {
            out.text("");
            out.number(0);
        }
    }
}

fn pack_part(out: &mut Writer, part: PartId) {
    out.hold(part.hold_id);
    out.number(part.attempt);
}

/// The lane's own lines of a cart.
fn pack_own(out: &mut Writer, lane: Lane, cart: &[CartLine]) {
    let own = || cart.iter().filter(|line| line.lane == lane);
    out.array(own().count());
    for line in own() {
        out.array(2);
        out.text(line.sku.as_str());
        out.number(line.quantity);
    }
}

fn pack_cart(out: &mut Writer, cart: &[CartLine]) {
    out.array(cart.len());
    for line in cart {
        out.array(3);
        out.number(i64::from(line.lane.number()));
        out.text(line.sku.as_str());
        out.number(line.quantity);
    }
}

/// The hold that a Reserve may make. What never changes of it is packed here as its value will have it.
fn pack_reserve(out: &mut Writer, lane: Lane, tenant: &Tenant, reserve: &Reserve, rules: Rules) {
    let cart = super::cart_of(&reserve.lines, rules.lanes);
    let is_cart = cart.iter().any(|line| line.lane != cart[0].lane);
    let is_all_or_nothing = reserve.policy == Policy::AllOrNothing;
    let mut rest = Writer(Vec::with_capacity(192));
    write_bin(&mut rest.0, Fingerprint::of_reserve(reserve).as_bytes()).expect("a Vec takes all");
    pack_own(&mut rest, lane, &cart);
    let terms_at = rest.0.len();
    rest.array(5);
    rest.text(reserve.idempotency_key.as_str());
    rest.text(cells::policy_name(reserve.policy));
    rest.text(reserve.external_ref.as_ref().map_or("", Text::as_str));
    rest.array(usize::from(is_cart));
    if is_cart {
        rest.array(2);
        rest.number(rules.relay_ms);
        pack_cart(&mut rest, &cart);
    }
    if is_all_or_nothing {
        rest.array(0);
    } else {
        pack_own(&mut rest, lane, &cart);
    }
    out.hold(HoldId::of(lane, tenant, &reserve.idempotency_key));
    out.text(reserve.user_id.as_str());
    out.number(reserve.ttl_ms.unwrap_or(rules.default_ttl_ms));
    out.bytes(&rest.0);
    pack_own(out, lane, &cart);
    if is_all_or_nothing {
        write_bool(&mut out.0, false).expect("a Vec takes all");
    } else {
        out.text(reserve.policy.name());
    }
    out.number(i64::try_from(terms_at).expect("lines are short"));
    write_bool(&mut out.0, is_cart).expect("a Vec takes all");
}

fn pack_command(out: &mut Writer, lane: Lane, entry: &Entry, command: &Command, rules: Rules) {
    let start = |out: &mut Writer, kind: &str, rest: usize| {
        head(out, entry, kind, &command.tenant, command.source.as_ref(), rest);
    };
    match &command.body {
        CommandBody::Reserve(reserve) => {
            start(out, "reserve", 8);
            pack_reserve(out, lane, &command.tenant, reserve, rules);
        }
        CommandBody::Confirm { hold_id, payment_ref } => {
            start(out, "confirm", 2);
            out.hold(*hold_id);
            out.text(payment_ref.as_str());
        }
        CommandBody::Cancel { hold_id, reason } => {
            start(out, "cancel", 2);
            out.hold(*hold_id);
            out.text(reason.as_str());
        }
        CommandBody::Extend { hold_id, ttl_ms } => {
            start(out, "extend", 4);
            out.hold(*hold_id);
            out.number(*ttl_ms);
            out.text(command.command_id.as_str());
            out.text(&cells::hex(&Fingerprint::of_extend(*hold_id, *ttl_ms)));
        }
        CommandBody::Release { hold_id, attempt } => {
            start(out, "release", 2);
            out.hold(*hold_id);
            out.number(attempt.unwrap_or(-1));
        }
        CommandBody::Relay {
            part,
            user_id,
            relay_until,
            cart,
            ..
        } => {
            start(out, "relay", 6);
            pack_part(out, *part);
            out.text(user_id.as_str());
            out.number(*relay_until);
            pack_own(out, lane, cart);
            pack_cart(out, cart);
        }
        CommandBody::RelayDone { part } => {
            start(out, "relay_done", 2);
            pack_part(out, *part);
        }
        CommandBody::RelayFailed {
            part,
            reason,
            shortages,
        } => {
            start(out, "relay_failed", 4);
            pack_part(out, *part);
            out.text(reason.code());
            out.array(shortages.len());
            for short in shortages {
                out.array(4);
                out.text(short.sku.as_str());
                out.number(short.requested);
                out.number(short.available);
                write_bool(&mut out.0, short.retry).expect("a Vec takes all");
            }
        }
        CommandBody::Follow {
            part,
            relay_until,
            step,
            ..
        } => {
            start(out, "follow", 4);
            pack_part(out, *part);
            out.number(*relay_until);
            out.text(match step {
                PartStep::Settle => "settle",
                PartStep::Undo => "undo",
                PartStep::Ship => "ship",
                PartStep::Unallocate => "unallocate",
            });
        }
        CommandBody::AdjustStock {
            sku,
            adjustment,
            expected_on_hand,
            ..
        } => {
            start(out, "adjust", 6);
            out.text(sku.as_str());
            let (mode, units) = match adjustment {
                Adjustment::Change(units) => ("change", *units),
                Adjustment::Set(units) => ("set", *units),
            };
            out.text(mode);
            out.number(units);
            out.number(expected_on_hand.unwrap_or(-1));
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("an adjustment has a fingerprint"),
            ));
        }
        CommandBody::ConfigureSku { sku, policy } => {
            start(out, "configure", 5);
            out.text(sku.as_str());
            out.number(policy.safety_stock);
            out.number(policy.max_per_user.unwrap_or(-1));
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("a policy has a fingerprint"),
            ));
        }
        CommandBody::BeginPayment {
            hold_id,
            payment_ref,
            cap_ms,
        } => {
            start(out, "begin_payment", 3);
            out.hold(*hold_id);
            out.text(payment_ref.as_str());
            out.number(*cap_ms);
        }
        CommandBody::AbortPayment {
            hold_id, payment_ref, ..
        } => {
            start(out, "abort_payment", 2);
            out.hold(*hold_id);
            out.text(payment_ref.as_str());
        }
        CommandBody::Ship { hold_id, .. } => {
            start(out, "ship", 1);
            out.hold(*hold_id);
        }
        CommandBody::Unallocate { hold_id, reason, .. } => {
            start(out, "unallocate", 2);
            out.hold(*hold_id);
            out.text(reason.as_str());
        }
        CommandBody::ReturnStock { sku, quantity, .. } => {
            start(out, "take_back", 4);
            out.text(sku.as_str());
            out.number(quantity.units());
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("a return has a fingerprint"),
            ));
        }
        CommandBody::RequireRefund {
            hold_id, payment_ref, ..
        } => {
            start(out, "require_refund", 4);
            out.hold(*hold_id);
            out.text(payment_ref.as_str());
            out.text(command.command_id.as_str());
            out.text(&cells::hex(
                &fingerprint_of(&command.body).expect("a refund has a fingerprint"),
            ));
        }
    }
}
