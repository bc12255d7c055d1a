//! A bounded map that keeps what changed last.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

struct Entry<V> {
    value: V,
    /// When it changed last; the order of forgetting.
    changed: i64,
}

/// Keeps at most so many entries; what has not changed for long is forgotten first.
///
/// The queue holds every key once, with the change it was queued for. A key that changed since gets another turn when its
/// own comes, so a change costs no move in the queue, and the order is about, not exactly, that of the changes.
pub struct Recent<K, V> {
    capacity: usize,
    entries: HashMap<K, Entry<V>>,
    queue: VecDeque<(i64, K)>,
    clock: i64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// An empty map for at most `capacity` entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            clock: 0,
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed; this does not count as a change for the order of forgetting.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Sets a value and returns the one that was forgotten for it, if any.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.clock += 1;
        let changed = self.clock;
        if let Some(entry) = self.entries.get_mut(&key) {
            *entry = Entry { value, changed };
            return None;
        }
        self.entries.insert(key.clone(), Entry { value, changed });
        self.queue.push_back((changed, key));
        if self.entries.len() > self.capacity {
            self.forget_oldest()
        } else {
            None
        }
    }

    fn forget_oldest(&mut self) -> Option<(K, V)> {
        while let Some((queued, key)) = self.queue.pop_front() {
            match self.entries.get(&key) {
                Some(entry) if entry.changed == queued => {
                    return self.entries.remove(&key).map(|entry| (key, entry.value));
                }
                // Each turn here is paid for by a change that queued nothing.
                Some(entry) => self.queue.push_back((entry.changed, key)),
                None => {}
            }
        }
        None
    }

    /// Forgets a key. Its place in the queue goes when its turn comes, or when such places get too many.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key).map(|entry| entry.value);
        if self.queue.len() > 2 * self.capacity {
            let mut places: Vec<_> = self
                .entries
                .iter()
                .map(|(key, entry)| (entry.changed, key.clone()))
                .collect();
            places.sort_unstable_by_key(|(changed, _)| *changed);
            self.queue = places.into();
        }
        removed
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_last_stays() {
        let mut recent = Recent::new(3);
        for key in ["a", "b", "c", "a"] {
            assert!(recent.insert(key, key.len()).is_none());
        }
        assert_eq!(recent.insert("d", 1), Some(("b", 1)));
        assert_eq!(recent.insert("e", 1), Some(("c", 1)));
        assert!(recent.get(&"a").is_some(), "it changed after b and c");
        assert_eq!(recent.entries.len(), 3);
    }

    #[test]
    fn a_key_that_changes_often_takes_no_room() {
        let mut recent = Recent::new(2);
        recent.insert(0, 0);
        for change in 0..10_000 {
            assert!(recent.insert(1, change).is_none());
        }
        assert_eq!(recent.queue.len(), 2);
        assert_eq!(recent.get(&0), Some(&0));
    }

    #[test]
    fn what_comes_and_goes_leaves_no_queue() {
        let mut recent = Recent::new(10);
        recent.insert(-1, ());
        for key in 0..10_000 {
            recent.insert(key % 3, ());
            recent.remove(&(key % 3));
        }
        assert!(recent.queue.len() <= 21 && recent.entries.len() == 1);
        for key in 0..10 {
            recent.insert(key, ());
        }
        assert!(recent.get(&-1).is_none() && recent.entries.len() == 10);
    }
}
