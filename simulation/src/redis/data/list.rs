//! Commands on lists.

use std::collections::VecDeque;

use super::{Answer, Arguments, Data, Held, counted, integer, wrong, wrong_type};

impl Data {
    pub(super) fn run_on_list(&mut self, command: &str, key: &[u8], rest: Arguments<'_>) -> Answer {
        let none = VecDeque::new();
        let list = match self.0.get(key).map(|held| &**held) {
            None => &none,
            Some(Held::List(list)) => list,
            Some(_) => return wrong_type(),
        };
        // Both ends included; negative from the end.
        let range = |from: &[u8], to: &[u8]| {
            let len = i64::try_from(list.len()).expect("few");
            let at = |text: &[u8]| integer(text).map(|at| if at < 0 { len + at } else { at });
            let (from, to) = (at(from)?.max(0), at(to)?.min(len - 1));
            let from = usize::try_from(from).ok()?;
            Some(from..usize::try_from(to + 1).unwrap_or(0).max(from))
        };
        match (command, rest) {
            ("LLEN", []) => counted(list.len()),
            ("LINDEX", [at]) => {
                let found = range(at, at).and_then(|range| list.get(range.start));
                found.map_or(Answer::Nil, |value| Answer::Text(value.clone()))
            }
            ("LRANGE", [from, to]) => {
                let Some(range) = range(from, to) else {
                    return wrong("value is not an integer");
                };
                Answer::List(
                    list.iter()
                        .skip(range.start)
                        .take(range.len())
                        .cloned()
                        .map(Answer::Text)
                        .collect(),
                )
            }
            ("LTRIM", [from, to]) => {
                let Some(range) = range(from, to) else {
                    return wrong("value is not an integer");
                };
                self.change(key, Held::List(VecDeque::new()), |held| {
                    let Held::List(list) = held else {
                        unreachable!("just seen")
                    };
                    *list = list.iter().skip(range.start).take(range.len()).cloned().collect();
                });
                Answer::Okay
            }
            ("RPUSH", values) if !values.is_empty() => self.change(key, Held::List(VecDeque::new()), |held| {
                let Held::List(list) = held else {
                    unreachable!("just seen")
                };
                list.extend(values.iter().cloned());
                counted(list.len())
            }),
            _ => wrong("wrong number of arguments"),
        }
    }
}
