//! The scripts' host: Lua 5.1 with what Redis gives a script (`redis.call`, `cmsgpack`, `KEYS`, `ARGV`).
//!
//! It is made once and used by every Redis of every story; a script sees nothing but the data set it is run on.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use mlua::{Error, Function, Lua, MultiValue, Value, Variadic};

use super::{
    data::{self, Answer, Data},
    msgpack,
};

/// The data set that a script runs on, and how many more writes it gets to do before it is cut off.
#[derive(Default)]
struct Stage {
    data: Data,
    writes_left: Option<u64>,
}

/// The host of scripts.
pub(crate) struct Host {
    lua: Lua,
    stage: Rc<RefCell<Stage>>,
    compiled: RefCell<HashMap<String, Function>>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let (lua, stage) = (Lua::new(), Rc::<RefCell<Stage>>::default());
        open(&lua, &stage).expect("a fresh Lua takes two tables");
        Self {
            lua,
            stage,
            compiled: RefCell::default(),
        }
    }

    /// Runs a script on a data set; `cut`: it stops with an error after so many writes.
    pub(crate) fn run(
        &self,
        text: &str,
        (keys, arguments): (&[Vec<u8>], &[Vec<u8>]),
        data: &mut Data,
        cut: Option<u64>,
    ) -> Answer {
        *self.stage.borrow_mut() = Stage {
            data: std::mem::take(data),
            writes_left: cut,
        };
        let answer = self.call(text, keys, arguments);
        *data = std::mem::take(&mut self.stage.borrow_mut().data);
        answer.unwrap_or_else(|error| Answer::Error(format!("ERR {error}")))
    }

    fn call(&self, text: &str, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> mlua::Result<Answer> {
        let known = self.compiled.borrow().get(text).cloned();
        let script = match known {
            Some(script) => script,
            None => {
                // Redis reads the first line itself.
                let body = text
                    .strip_prefix("#!")
                    .map_or_else(|| text.to_owned(), |rest| format!("--{rest}"));
                let script = self.lua.load(body).into_function()?;
                self.compiled.borrow_mut().insert(text.to_owned(), script.clone());
                script
            }
        };
        let list = |values: &[Vec<u8>]| {
            let strings = values.iter().map(|value| self.lua.create_string(value));
            self.lua
                .create_sequence_from(strings.collect::<mlua::Result<Vec<_>>>()?)
        };
        self.lua.globals().raw_set("KEYS", list(keys)?)?;
        self.lua.globals().raw_set("ARGV", list(arguments)?)?;
        answer_of(&script.call(())?)
    }
}

fn open(lua: &Lua, stage: &Rc<RefCell<Stage>>) -> mlua::Result<()> {
    let stage = stage.clone();
    let call = lua.create_function(move |lua, arguments: Variadic<Value>| {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(argument).collect::<mlua::Result<_>>()?;
        let Some((name, rest)) = arguments.split_first() else {
            return Err(Error::runtime("redis.call needs a command"));
        };
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        let mut stage = stage.borrow_mut();
        if data::writes(&name)
            && let Some(left) = &mut stage.writes_left
        {
            if *left == 0 {
                return Err(Error::runtime("the script was cut off"));
            }
            *left -= 1;
        }
        value_of(lua, &stage.data.run(&name, rest))
    })?;
    let redis = lua.create_table()?;
    redis.set("call", call)?;
    lua.globals().set("redis", redis)?;

    let pack = lua.create_function(|lua, values: Variadic<Value>| {
        let mut packed = Vec::new();
        for value in values.iter() {
            msgpack::pack(&mut packed, value)?;
        }
        lua.create_string(&packed)
    })?;
    let unpack = lua.create_function(|lua, packed: mlua::LuaString| {
        let packed = packed.as_bytes();
        let mut rest = &packed[..];
        let mut values = MultiValue::new();
        while !rest.is_empty() {
            values.push_back(msgpack::unpack(lua, &mut rest)?);
        }
        Ok(values)
    })?;
    // As `unpack`, but so many values from an offset on; first comes where the next one starts, or -1 at the end.
    let some = |lua: &Lua, packed: &mlua::LuaString, most: usize, from: usize| {
        let packed = packed.as_bytes();
        let beyond = || Error::runtime("start offset greater than input length");
        let mut rest = packed.get(from..).ok_or_else(beyond)?;
        let mut values = MultiValue::new();
        while !rest.is_empty() && values.len() < most {
            values.push_back(msgpack::unpack(lua, &mut rest)?);
        }
        let next = if rest.is_empty() {
            -1.0
        } else {
            (packed.len() - rest.len()) as f64
        };
        values.push_front(Value::Number(next));
        Ok(values)
    };
    let unpack_one = lua.create_function(move |lua, (packed, from): (mlua::LuaString, Option<usize>)| {
        some(lua, &packed, 1, from.unwrap_or(0))
    })?;
    let unpack_limit = lua.create_function(
        move |lua, (packed, most, from): (mlua::LuaString, usize, Option<usize>)| {
            some(lua, &packed, most, from.unwrap_or(0))
        },
    )?;
    let cmsgpack = lua.create_table()?;
    cmsgpack.set("unpack_one", unpack_one)?;
    cmsgpack.set("unpack_limit", unpack_limit)?;
    cmsgpack.set("pack", pack)?;
    cmsgpack.set("unpack", unpack)?;
    lua.globals().set("cmsgpack", cmsgpack)
}

/// An argument of `redis.call`, as Redis takes it.
fn argument(value: &Value) -> mlua::Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        // `%.17g`: whole numbers of up to 17 digits are written out.
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e17 => {
            Ok(format!("{number:.0}").into_bytes())
        }
        _ => Err(Error::runtime(
            "Lua redis lib command arguments must be strings or integers",
        )),
    }
}

fn value_of(lua: &Lua, answer: &Answer) -> mlua::Result<Value> {
    Ok(match answer {
        Answer::Nil => Value::Boolean(false),
        Answer::Okay => {
            let table = lua.create_table()?;
            table.set("ok", "OK")?;
            Value::Table(table)
        }
        Answer::Number(number) => Value::Number(*number as f64),
        Answer::Text(text) => Value::String(lua.create_string(text)?),
        Answer::List(answers) => {
            let table = lua.create_table_with_capacity(answers.len(), 0)?;
            for (at, answer) in answers.iter().enumerate() {
                table.raw_set(at + 1, value_of(lua, answer)?)?;
            }
            Value::Table(table)
        }
        Answer::Error(error) => return Err(Error::runtime(error)),
    })
}

/// A script's return value as Redis answers it.
fn answer_of(value: &Value) -> mlua::Result<Answer> {
    Ok(match value {
        Value::Boolean(true) => Answer::Number(1),
        Value::Integer(number) => Answer::Number(*number),
        Value::Number(number) => Answer::Number(*number as i64),
        Value::String(text) => Answer::Text(text.as_bytes().to_vec()),
        Value::Table(table) => {
            // Up to the first hole, as Redis does.
            let mut answers = Vec::with_capacity(table.raw_len());
            for at in 1.. {
                match table.raw_get::<Value>(at)? {
                    Value::Nil => break,
                    value => answers.push(answer_of(&value)?),
                }
            }
            Answer::List(answers)
        }
        _ => Answer::Nil,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Answer {
        Host::new().run(script, (&[], &[]), &mut Data::default(), None)
    }

    #[test]
    fn values_are_unpacked_one_by_one_and_say_where_the_next_one_starts() {
        let script = "local packed = cmsgpack.pack('a', 300, {1, 2})
            local first, a = cmsgpack.unpack_one(packed)
            local second, n = cmsgpack.unpack_one(packed, first)
            local rest, both, array = cmsgpack.unpack_limit(packed, 9, first)
            return { first, a, second, n, rest, both, #array, cmsgpack.unpack_limit(packed, 2) }";
        let Answer::List(found) = run(script) else {
            panic!("a list")
        };
        let number = Answer::Number;
        let text = Answer::Text(b"a".to_vec());
        let expected = [
            number(2),
            text.clone(),
            number(5),
            number(300),
            number(-1),
            number(300),
            number(2),
            number(5),
            text,
            number(300),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_gives_one_element_from_either_end() {
        let script = "redis.call('RPUSH', 'k', 'a', 'b')
            return { redis.call('LINDEX', 'k', 0), redis.call('LINDEX', 'k', -1), tostring(redis.call('LINDEX', 'k', 2)) }";
        let text = |text: &str| Answer::Text(text.as_bytes().to_vec());
        assert_eq!(run(script), Answer::List(vec![text("a"), text("b"), text("false")]));
    }
}
