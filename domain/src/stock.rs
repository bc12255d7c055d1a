//! Stock of one SKU: counters, and what a hold does to them.

use crate::limits;

/// What the shop allows for a SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkuPolicy {
    /// Units on hand that are never sold.
    pub safety_stock: i64,
    /// Most units that one user may hold and buy; `None` for no limit.
    pub max_per_user: Option<i64>,
}

/// Counters of one SKU, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// In the warehouse.
    pub on_hand: i64,
    /// Kept for holds.
    pub held: i64,
    /// Bought and not shipped yet.
    pub allocated: i64,
    /// One more with every change.
    pub version: i64,
    /// What the shop allows.
    pub policy: SkuPolicy,
}

impl Stock {
    /// Units that can be reserved now, never negative.
    #[must_use]
    pub fn available(&self) -> i64 {
        (self.on_hand - self.held - self.allocated - self.policy.safety_stock).max(0)
    }

    /// I1: held + allocated <= on hand, and no counter outside its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.held >= 0
            && self.allocated >= 0
            && self.on_hand <= limits::ON_HAND_MAX
            && self.held + self.allocated <= self.on_hand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safety_stock_is_not_for_sale_and_available_is_never_negative() {
        let stock = |on_hand, held, safety_stock| Stock {
            on_hand,
            held,
            policy: SkuPolicy {
                safety_stock,
                max_per_user: None,
            },
            ..Stock::default()
        };
        assert_eq!(stock(10, 3, 2).available(), 5);
        assert_eq!(stock(10, 9, 5).available(), 0);
        assert!(stock(10, 10, 0).is_sound());
        assert!(!stock(10, 11, 0).is_sound());
    }
}
