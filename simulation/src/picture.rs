//! A lane in Redis as the judge compares it: what its keys mean, whoever has written them and in whatever order.

use std::collections::BTreeMap;

use domain::limits;

use crate::redis::data::{Data, Held};

/// What a key holds, without what depends on how it came there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// MessagePack, with numbers as numbers.
    Cell(Vec<String>),
    Fields(BTreeMap<String, String>),
    Members(Vec<String>),
    Scores(BTreeMap<String, i64>),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field or a member: text, or the bytes of an id, which are no two the same.
fn name(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The generation of a lane that is whole.
pub(crate) fn generation_of(data: &Data, lane_key: &str) -> Option<i64> {
    match data.0.get(lane_key.as_bytes()).map(|held| &**held) {
        Some(Held::Hash(lane)) if !lane.contains_key(&b"building"[..]) => {
            text(lane.get(&b"generation"[..])?).parse().ok()
        }
        _ => None,
    }
}

/// The owner of a lane.
pub(crate) fn epoch_of(data: &Data, lane_key: &str) -> Option<i64> {
    match data.0.get(lane_key.as_bytes()).map(|held| &**held) {
        Some(Held::Hash(lane)) => text(lane.get(&b"epoch"[..])?).parse().ok(),
        _ => None,
    }
}

fn base_of(lane_key: &str) -> &str {
    lane_key.strip_suffix("lane").unwrap_or(lane_key)
}

/// A key of another generation than this.
pub(crate) fn others(data: &Data, lane_key: &str, generation: i64) -> Option<String> {
    let (base, own) = (base_of(lane_key), format!("{}{generation}:", base_of(lane_key)));
    let keys = data.0.keys().map(|key| text(key));
    keys.into_iter()
        .find(|key| key.starts_with(base) && key != lane_key && !key.starts_with(&own))
}

/// Every key of a generation that says something of the lane at this log time, by its name without the generation.
pub(crate) fn seen(data: &Data, lane_key: &str, generation: i64, log_time: i64) -> BTreeMap<String, Seen> {
    let own = format!("{}{generation}:", base_of(lane_key));
    let mut seen = BTreeMap::new();
    for (key, held) in &data.0 {
        let key = text(key);
        let Some(name) = key.strip_prefix(&own) else { continue };
        // The journal is what is not read back yet; what may be forgotten stands in an order of its own.
        if name == "journal" || name == "forget" {
            continue;
        }
        let value = match &**held {
            Held::Text(packed) => Seen::Cell(cell(packed)),
            Held::Hash(fields) => {
                let value = |value: &[u8]| {
                    // An array of MessagePack; anything else in a hash is text.
                    let packed = matches!(value.first(), Some(0x90..=0x9f | 0xdc | 0xdd));
                    if packed { cell(value).join(" ") } else { text(value) }
                };
                let fields = fields.iter().map(|(field, held)| (self::name(field), value(held)));
                // Requests are dropped by the stretch; one that was rebuilt has only those that are remembered.
                let counts = |value: &str| !name.starts_with("requests:") || is_remembered(value, log_time);
                Seen::Fields(fields.filter(|(_, value)| counts(value)).collect())
            }
            Held::Set(members) => Seen::Members(members.iter().map(|member| text(member)).collect()),
            Held::List(values) => Seen::Members(values.iter().map(|value| text(value)).collect()),
            Held::Sorted(scores) => {
                let scores = scores.iter().map(|(member, score)| (self::name(member), *score as i64));
                // What is over is swept when somebody comes by.
                let counts = |score: i64| !name.starts_with("relayed:") || score > log_time;
                Seen::Scores(scores.filter(|(_, score)| counts(*score)).collect())
            }
        };
        let empty = match &value {
            Seen::Scores(scores) => scores.is_empty(),
            Seen::Fields(fields) => fields.is_empty(),
            Seen::Cell(_) | Seen::Members(_) => false,
        };
        if !empty {
            seen.insert(name.to_owned(), value);
        }
    }
    seen
}

fn is_remembered(refused_at: &str, log_time: i64) -> bool {
    let at: Result<i64, _> = refused_at.parse();
    at.is_ok_and(|at| at + limits::REMEMBER_REQUEST_MS > log_time)
}

/// The values of a MessagePack cell in order; a number is the same however it is packed.
fn cell(packed: &[u8]) -> Vec<String> {
    let mut rest = packed;
    let mut values = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        let mut take = |bytes: usize| {
            let (first, after) = rest.split_at(bytes.min(rest.len()));
            rest = after;
            first
        };
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_i128, |number, byte| (number << 8) | i128::from(*byte))
        };
        let signed = |bytes: &[u8]| {
            let bits = 8 * bytes.len();
            let value = number(bytes);
            if value >> (bits - 1) == 1 {
                value - (1 << bits)
            } else {
                value
            }
        };
        let length = |bytes: &[u8]| usize::try_from(number(bytes)).expect("a small cell");
        values.push(match kind {
            0x00..=0x7f => kind.to_string(),
            0xe0..=0xff => i8::from_be_bytes([*kind]).to_string(),
            0x80..=0x8f => format!("map of {}", kind & 0x0f),
            0x90..=0x9f => format!("array of {}", kind & 0x0f),
            0xa0..=0xbf => format!("{:?}", text(take(usize::from(kind & 0x1f)))),
            0xc0 => "nil".to_owned(),
            0xc2 => "false".to_owned(),
            0xc3 => "true".to_owned(),
            0xcc..=0xcf => number(take(1 << (kind - 0xcc))).to_string(),
            0xd0..=0xd3 => signed(take(1 << (kind - 0xd0))).to_string(),
            0xd9..=0xdb => {
                let bytes = length(take(1 << (kind - 0xd9)));
                format!("{:?}", text(take(bytes)))
            }
            0xc4..=0xc6 => {
                let bytes = length(take(1 << (kind - 0xc4)));
                format!("{:?}", text(take(bytes)))
            }
            0xdc | 0xdd => format!("array of {}", number(take(2 << (kind - 0xdc)))),
            other => format!("type {other:#x}"),
        });
    }
    values
}
