//! What clients read of the picture that the persister writes.

use domain::{HoldState, hold::Step};
use schemas::picture::{self, HoldFilter};

use crate::{
    opened,
    shop::{Shop, sku, tenant},
    world::World,
};

/// What clients ask of the picture: one hold, lists page by page, stock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_and_stock_are_found_and_listed() {
    let world = World::new(1).await;
    let persister = world.persister("a", 100);
    let mut shop = opened(&world, 6).await;
    let mut events = vec![shop.adjust(sku(0), 4), shop.adjust(sku(1), 50)];
    let tight = |user: &str, key: &str, shop: &mut Shop| shop.reserve(key, user, &[(sku(0), 3), (sku(1), 1)]);
    events.push(tight("anna", "first", &mut shop));
    events.push(tight("ben", "again", &mut shop));
    let (held, rejected) = (events[2].hold_id.unwrap(), events[3].hold_id.unwrap());
    for number in 0..25 {
        shop.now += number % 2; // Some at the same moment.
        events.push(shop.reserve(&format!("k{number}"), "carl", &[(sku(1), 1)]));
    }
    let last = world.write(shop.lane, &events).await + events.len() as i64;
    world.reaches(shop.lane, last).await;

    let found = picture::find_hold(&world.pool, held).await.unwrap().unwrap();
    assert_eq!(found.hold, shop.ledger.holds[&held]);
    assert_eq!((found.rejection, found.command_offset), (None, 2));
    let found = picture::find_hold(&world.pool, rejected).await.unwrap().unwrap();
    assert_eq!(found.hold.terms.state, HoldState::Rejected);
    let shortages = found.rejection.unwrap().shortages;
    assert_eq!(shortages.len(), 1);
    assert_eq!((shortages[0].requested, shortages[0].available), (3, 1));
    assert_eq!(found.hold.lines, [(sku(0), 3), (sku(1), 1)]);

    // The same key again, when there is enough.
    let retry = [shop.step(held, Step::Cancel), tight("ben", "again", &mut shop)];
    let last = world.write(shop.lane, &retry).await + 2;
    world.reaches(shop.lane, last).await;
    let found = picture::find_hold(&world.pool, rejected).await.unwrap().unwrap();
    assert_eq!((found.hold.terms.state, found.rejection), (HoldState::Held, None));
    assert_eq!(world.count("holds").await, 28);

    let filter = HoldFilter {
        tenant: tenant(),
        user_id: None,
        sku: None,
        state: None,
    };
    assert_eq!(pages(&world, &filter, 7).await.len(), 28);
    let of_sku = HoldFilter {
        sku: Some(sku(0)),
        ..filter.clone()
    };
    assert_eq!(pages(&world, &of_sku, 1).await.len(), 3);
    let carls = HoldFilter {
        user_id: Some(domain::UserId::parse("carl").unwrap()),
        state: Some(HoldState::Held),
        sku: Some(sku(1)),
        ..filter
    };
    assert_eq!(pages(&world, &carls, 10).await.len(), 25);

    let stock = picture::find_stock(&world.pool, &tenant(), &[sku(1), sku(9), sku(0)])
        .await
        .unwrap();
    assert_eq!(
        stock.iter().map(|(sku, _)| sku.clone()).collect::<Vec<_>>(),
        [sku(0), sku(1)]
    );
    assert_eq!(stock[0].1, shop.ledger.stock[&(tenant(), sku(0))]);
    let page = picture::list_stock(&world.pool, &tenant(), Some(&sku(0)), 10)
        .await
        .unwrap();
    assert_eq!(page, stock[1..]);
    persister.stop().await;
    world.end().await;
}

/// A whole list by its pages, checked for order and doubles.
async fn pages(world: &World, filter: &HoldFilter, limit: u32) -> Vec<picture::StoredHold> {
    let mut all: Vec<picture::StoredHold> = Vec::new();
    loop {
        let after = all.last().map(picture::StoredHold::cursor);
        let page = picture::list_holds(&world.pool, filter, after.as_ref(), limit)
            .await
            .unwrap();
        let full = page.len() == limit as usize;
        all.extend(page);
        if !full {
            break;
        }
    }
    let place =
        |stored: &picture::StoredHold| (stored.hold.terms.created_at, stored.hold_id, stored.hold.terms.attempt);
    assert!(
        all.windows(2).all(|pair| place(&pair[0]) > place(&pair[1])),
        "newest first, none twice"
    );
    all
}
