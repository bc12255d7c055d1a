//! MessagePack as Redis' `cmsgpack` writes and reads it for Lua: no binary type, whole numbers as integers.

use mlua::{Error, Lua, Result, Table, Value};

/// Packs one value.
pub(super) fn pack(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Nil => out.push(0xc0),
        Value::Boolean(false) => out.push(0xc2),
        Value::Boolean(true) => out.push(0xc3),
        Value::Integer(number) => pack_integer(out, *number),
        Value::Number(number) => pack_number(out, *number),
        Value::String(text) => pack_text(out, &text.as_bytes()),
        Value::Table(table) => pack_table(out, table)?,
        other => return Err(Error::runtime(format!("cmsgpack cannot pack a {}", other.type_name()))),
    }
    Ok(())
}

fn pack_number(out: &mut Vec<u8>, number: f64) {
    let whole = number as i64;
    if whole as f64 == number {
        pack_integer(out, whole);
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn pack_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..0x80 => out.push(number as u8),
        0x80..0x100 => out.extend([0xcc, number as u8]),
        0x100..0x1_0000 => {
            out.push(0xcd);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(0xce);
            out.extend((number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend((number as u64).to_be_bytes());
        }
        -32..0 => out.push(number as u8),
        -0x80..-32 => out.extend([0xd0, number as u8]),
        -0x8000..-0x80 => {
            out.push(0xd1);
            out.extend((number as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend((number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(number.to_be_bytes());
        }
    }
}

fn pack_length(out: &mut Vec<u8>, len: usize, fix: (u8, usize), small: Option<u8>, wide: u8, widest: u8) {
    let len = u32::try_from(len).expect("scripts hold less than 4 GiB");
    match (len, small) {
        (0.., _) if (len as usize) < fix.1 => out.push(fix.0 | len.to_be_bytes()[3]),
        (0..0x100, Some(small)) => out.extend([small, len.to_be_bytes()[3]]),
        (0..0x1_0000, _) => {
            out.push(wide);
            out.extend(&len.to_be_bytes()[2..]);
        }
        _ => {
            out.push(widest);
            out.extend(len.to_be_bytes());
        }
    }
}

fn pack_text(out: &mut Vec<u8>, text: &[u8]) {
    pack_length(out, text.len(), (0xa0, 32), Some(0xd9), 0xda, 0xdb);
    out.extend(text);
}

fn pack_table(out: &mut Vec<u8>, table: &Table) -> Result<()> {
    let len = table.raw_len();
    let pairs: Vec<(Value, Value)> = table.pairs().collect::<Result<_>>()?;
    if pairs.len() == len {
        pack_length(out, len, (0x90, 16), None, 0xdc, 0xdd);
        for at in 1..=len {
            pack(out, &table.raw_get::<Value>(at)?)?;
        }
    } else {
        pack_length(out, pairs.len(), (0x80, 16), None, 0xde, 0xdf);
        for (key, value) in &pairs {
            pack(out, key)?;
            pack(out, value)?;
        }
    }
    Ok(())
}

/// Unpacks one value and leaves the rest.
pub(super) fn unpack(lua: &Lua, rest: &mut &[u8]) -> Result<Value> {
    let kind = take::<1>(rest)?[0];
    Ok(match kind {
        0x00..=0x7f => Value::Number(f64::from(kind)),
        0xe0..=0xff => Value::Number(f64::from(i8::from_be_bytes([kind]))),
        0x80..=0x8f => map(lua, rest, usize::from(kind & 0x0f))?,
        0x90..=0x9f => array(lua, rest, usize::from(kind & 0x0f))?,
        0xa0..=0xbf => text(lua, rest, usize::from(kind & 0x1f))?,
        0xc0 => Value::Nil,
        0xc2 => Value::Boolean(false),
        0xc3 => Value::Boolean(true),
        0xca => Value::Number(f64::from(f32::from_be_bytes(take(rest)?))),
        0xcb => Value::Number(f64::from_be_bytes(take(rest)?)),
        0xcc => Value::Number(f64::from(take::<1>(rest)?[0])),
        0xcd => Value::Number(f64::from(u16::from_be_bytes(take(rest)?))),
        0xce => Value::Number(f64::from(u32::from_be_bytes(take(rest)?))),
        0xcf => Value::Number(u64::from_be_bytes(take(rest)?) as f64),
        0xd0 => Value::Number(f64::from(i8::from_be_bytes(take(rest)?))),
        0xd1 => Value::Number(f64::from(i16::from_be_bytes(take(rest)?))),
        0xd2 => Value::Number(f64::from(i32::from_be_bytes(take(rest)?))),
        0xd3 => Value::Number(i64::from_be_bytes(take(rest)?) as f64),
        0xc4 | 0xd9 => {
            let len = take::<1>(rest)?[0];
            text(lua, rest, usize::from(len))?
        }
        0xc5 | 0xda => {
            let len = u16::from_be_bytes(take(rest)?);
            text(lua, rest, usize::from(len))?
        }
        0xc6 | 0xdb => {
            let len = u32::from_be_bytes(take(rest)?);
            text(lua, rest, len as usize)?
        }
        0xdc => {
            let len = u16::from_be_bytes(take(rest)?);
            array(lua, rest, usize::from(len))?
        }
        0xdd => {
            let len = u32::from_be_bytes(take(rest)?);
            array(lua, rest, len as usize)?
        }
        0xde => {
            let len = u16::from_be_bytes(take(rest)?);
            map(lua, rest, usize::from(len))?
        }
        0xdf => {
            let len = u32::from_be_bytes(take(rest)?);
            map(lua, rest, len as usize)?
        }
        other => return Err(Error::runtime(format!("cmsgpack knows no type {other:#x}"))),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (first, after) = rest
        .split_first_chunk::<N>()
        .ok_or_else(|| Error::runtime("missing bytes in input"))?;
    *rest = after;
    Ok(*first)
}

fn text(lua: &Lua, rest: &mut &[u8], len: usize) -> Result<Value> {
    let (first, after) = rest
        .split_at_checked(len)
        .ok_or_else(|| Error::runtime("missing bytes in input"))?;
    *rest = after;
    Ok(Value::String(lua.create_string(first)?))
}

fn array(lua: &Lua, rest: &mut &[u8], len: usize) -> Result<Value> {
    let table = lua.create_table_with_capacity(len.min(1_024), 0)?;
    for at in 1..=len {
        table.raw_set(at, unpack(lua, rest)?)?;
    }
    Ok(Value::Table(table))
}

fn map(lua: &Lua, rest: &mut &[u8], len: usize) -> Result<Value> {
    let table = lua.create_table()?;
    for _ in 0..len {
        let key = unpack(lua, rest)?;
        let value = unpack(lua, rest)?;
        table.raw_set(key, value)?;
    }
    Ok(Value::Table(table))
}
