//! What clients are told when the log says yes.

use domain::{CommandBody, EventBody, HoldState, Text, UserId};
use ingress::Options;
use reqwest::Method;
use serde_json::json;
use tokio::join;

use crate::{
    reserver::policy_of,
    world::{Api, Said, World, options, sku_in},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_reserved_read_extended_confirmed_and_replayed() {
    let (world, api, mut reserver) = World::with_all().await;
    let (sku, other) = (sku_in(2), sku_in(2));
    let body = json!({
        "lines": [{"sku": sku.as_str(), "quantity": 2}, {"sku": other.as_str(), "quantity": 1}],
        "user_id": "user-1", "ttl_seconds": 60, "external_ref": "cart-7",
    });
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let send = || async {
        let request = api.post("/v1/holds", &body).header("Idempotency-Key", "order-1");
        Said::read(request.header("traceparent", trace).send().await.unwrap()).await
    };

    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created.clone()).await;
        (asked, created)
    };
    let (said, (asked, created)) = join!(send(), decide);
    // Same SKU: summed, in its lane, keyed by it, and with the headers that kcat shows.
    assert_eq!((asked.lane.partition(), asked.key.as_str()), (2, sku.as_str()));
    assert_eq!(asked.reserve().lines.as_slice()[0].quantity.units(), 3);
    assert_eq!(asked.reserve().ttl_ms, Some(60_000));
    assert_eq!(asked.header("ce_type"), "holdfast.Reserve");
    assert_eq!(asked.header("ce_subject"), asked.hold_id().to_string());
    assert_eq!(asked.header("traceparent"), trace);

    let hold_id = asked.hold_id().to_string();
    let path = format!("/v1/holds/{hold_id}");
    assert_eq!(said.status, 201, "{said:?}");
    assert_eq!(said.header("location"), path);
    assert_eq!(said.header("idempotency-key"), "order-1");
    assert_eq!(said.body["hold_id"], hold_id.as_str());
    assert_eq!(said.body["state"], "held");
    assert_eq!(said.body["lines"], json!([{"sku": sku.as_str(), "quantity": 3}]));
    assert_eq!(said.body["user_id"], "user-1");
    assert_eq!(said.body["external_ref"], "cart-7");
    assert_eq!(said.body["policy"], "all_or_nothing");
    let expires_at = said.body["expires_at"].as_str().unwrap();
    assert!(expires_at.len() == 24 && expires_at.ends_with('Z'), "{expires_at}");
    // The client sees its own write, from memory: no row is in Postgres.
    assert_eq!(api.get(&path).await.body, said.body);

    let decide = async {
        let asked = reserver.next().await;
        let replayed = reserver.changed(&asked, &created, EventBody::HoldReplayed, |_| {});
        reserver.decide(&asked, replayed).await;
    };
    let (again, ()) = join!(send(), decide);
    assert_eq!(
        (again.status.as_u16(), again.header("idempotent-replayed")),
        (200, "true")
    );
    assert_eq!(again.body, said.body);

    let extend = api.post(&format!("{path}/extend"), &json!({"ttl_seconds": 120}));
    let decide = async {
        let asked = reserver.next().await;
        assert_eq!(asked.key, hold_id);
        let fingerprint = created.hold.as_ref().unwrap().fingerprint;
        let extended = reserver.changed(&asked, &created, EventBody::HoldExtended { fingerprint }, |hold| {
            hold.expires_at += 60_000;
        });
        reserver.decide(&asked, extended).await;
    };
    let (response, ()) = join!(extend.send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!(said.status, 200);
    assert!(
        !said.header("idempotency-key").is_empty(),
        "made where the client gave none"
    );
    assert!(said.body["expires_at"].as_str().unwrap() > expires_at);

    let confirm = api.post(&format!("{path}/confirm"), &json!({"payment_ref": "pay_1"}));
    let decide = async {
        let asked = reserver.next().await;
        let confirmed = reserver.changed(&asked, &created, EventBody::HoldConfirmed, |hold| {
            hold.state = HoldState::Confirmed;
            hold.payment_ref = Some(Text::parse("payment_ref", "pay_1").unwrap());
        });
        reserver.decide(&asked, confirmed).await;
    };
    let (response, ()) = join!(confirm.send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!((said.status.as_u16(), &said.body["state"]), (200, &json!("confirmed")));
    assert_eq!(said.body["payment_ref"], "pay_1");
    assert_eq!(api.get(&path).await.body["state"], "confirmed");

    let metrics = api
        .call(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        r#"holdfast_http_requests_total{call="reserve",status="201",outcome="created"}"#,
        r#"holdfast_http_requests_total{call="reserve",status="200",outcome="replayed"}"#,
        r#"holdfast_http_request_seconds_bucket{call="confirm""#,
        "holdfast_ingress_decision_seconds_count",
        "holdfast_ingress_waiters",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_needs_no_body_and_a_key_is_made() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = json!({"lines": [{"sku": sku_in(0).as_str(), "quantity": 1}], "user_id": "käuferin"});
    let decide = async {
        let asked = reserver.next().await;
        assert_eq!(asked.reserve().user_id, UserId::parse("käuferin").unwrap());
        let created = reserver.created(&asked);
        reserver.decide(&asked, created.clone()).await;
        (asked, created)
    };
    let (response, (asked, created)) = join!(api.post("/v1/holds", &body).send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!(said.header("idempotency-key"), asked.reserve().idempotency_key.as_str());
    assert_eq!(said.body["idempotency_key"], asked.reserve().idempotency_key.as_str());

    let path = format!("/v1/holds/{}/cancel", asked.hold_id());
    let decide = async {
        let asked = reserver.next().await;
        let cancelled = reserver.changed(&asked, &created, EventBody::HoldCancelled, |hold| {
            hold.state = HoldState::Cancelled;
            hold.reason = Some(Text::parse("reason", "").unwrap());
        });
        reserver.decide(&asked, cancelled).await;
    };
    let (response, ()) = join!(api.call(Method::POST, &path).send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!((said.status.as_u16(), &said.body["state"]), (200, &json!("cancelled")));
    assert!(said.body.get("reason").is_none());

    for (body, reason) in [
        (json!(null), ""),
        (json!({}), ""),
        (json!({"reason": "too late"}), "too late"),
    ] {
        let decide = async {
            let asked = reserver.next().await;
            let CommandBody::Cancel {
                reason: asked_reason, ..
            } = &asked.command.body
            else {
                panic!("{asked:?}")
            };
            assert_eq!(asked_reason.as_str(), reason);
            let replayed = reserver.changed(&asked, &created, EventBody::HoldReplayed, |hold| {
                hold.state = HoldState::Cancelled;
            });
            reserver.decide(&asked, replayed).await;
        };
        let (response, ()) = join!(api.post(&path, &body).send(), decide);
        assert_eq!(response.unwrap().status(), 200);
    }
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_adjusted_and_configured_and_available_leaves_the_safety_stock_out() {
    let (world, api, mut reserver) = World::with_all().await;
    let sku = sku_in(1);
    let adjust = api
        .post(
            "/v1/stock/adjustments",
            &json!({"sku": sku.as_str(), "set": 50, "expected": 0, "reason": "delivery", "reference": "DN-1"}),
        )
        .header("Idempotency-Key", "delivery-1")
        .header("X-Actor", "warehouse");
    let decide = async {
        let asked = reserver.next().await;
        assert_eq!(
            (asked.key.as_str(), asked.command.command_id.as_str()),
            (sku.as_str(), "delivery-1")
        );
        let stocked = reserver.stocked(&asked, 50, 1);
        let EventBody::StockAdjusted { actor, .. } = &stocked.body else {
            panic!()
        };
        assert_eq!(actor.as_str(), "warehouse");
        reserver.decide(&asked, stocked).await;
    };
    let (response, ()) = join!(adjust.send(), decide);
    let said = Said::read(response.unwrap()).await;
    assert_eq!(
        (said.status.as_u16(), said.header("idempotency-key")),
        (200, "delivery-1")
    );
    assert_eq!(
        said.body,
        json!({"sku": sku.as_str(), "on_hand": 50, "held": 3, "allocated": 2, "available": 45, "version": 1, "safety_stock": 0})
    );

    let configure = api
        .call(Method::PUT, &format!("/v1/skus/{sku}"))
        .json(&json!({"safety_stock": 10, "max_per_user": 4}));
    let decide = async {
        let asked = reserver.next().await;
        assert_eq!(policy_of(&asked).max_per_user, Some(4));
        let stocked = reserver.stocked(&asked, 50, 2);
        reserver.decide(&asked, stocked).await;
    };
    let (response, ()) = join!(configure.send(), decide);
    let configured = Said::read(response.unwrap()).await;
    assert_eq!(configured.body["available"], 35);
    assert_eq!(configured.body["max_per_user"], 4);
    assert_eq!(api.get(&format!("/v1/stock/{sku}")).await.body, configured.body);

    let list = api.get(&format!("/v1/stock?sku={sku}&sku=nothing&sku={sku}")).await;
    assert_eq!(list.body, json!({"stock": [configured.body], "unknown": ["nothing"]}));
    api.get("/v1/stock/nothing").await.is_problem(404, "unknown_sku");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_form_is_short() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = json!({"sku": sku_in(3).as_str(), "qty": 1, "user_id": "u", "idempotency_key": "short-1"});
    let decide = async {
        let asked = reserver.next().await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created.clone()).await;
        (asked, created)
    };
    let (response, (asked, created)) = join!(api.post("/holds/reserve", &body).send(), decide);
    let said = Said::read(response.unwrap()).await;
    let hold_id = asked.hold_id().to_string();
    assert_eq!(
        (said.status.as_u16(), said.body),
        (200, json!({"hold_id": hold_id.as_str()}))
    );

    let cancel = json!({"hold_id": hold_id.as_str()});
    let decide = async {
        let asked = reserver.next().await;
        let cancelled = reserver.changed(&asked, &created, EventBody::HoldCancelled, |hold| {
            hold.state = HoldState::Cancelled;
        });
        reserver.decide(&asked, cancelled.clone()).await;
        cancelled
    };
    let (response, cancelled) = join!(api.post("/holds/cancel", &cancel).send(), decide);
    assert_eq!(response.unwrap().status(), 200);

    // A replay of a hold that is over must not look like a hold.
    let decide = async {
        let asked = reserver.next().await;
        let replayed = reserver.changed(&asked, &cancelled, EventBody::HoldReplayed, |_| {});
        reserver.decide(&asked, replayed).await;
    };
    let (response, ()) = join!(api.post("/holds/reserve", &body).send(), decide);
    Said::read(response.unwrap()).await.is_problem(409, "already_cancelled");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself_without_the_network() {
    let (world, api, reserver) = World::with_all().await;
    let described = api.get("/openapi.json").await;
    assert_eq!(described.body["openapi"], "3.1.0");
    let paths = described.body["paths"].as_object().unwrap();
    let calls: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(calls, 17, "{:?}", paths.keys());
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.contains_key("400") && responses.contains_key("503"),
                "{method} {path}"
            );
        }
    }
    assert!(described.body["components"]["schemas"]["Problem"]["properties"]["code"].is_object());

    let page = api.call(Method::GET, "/docs/").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        let response = api.call(Method::GET, &format!("/docs/{file}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{file}");
        assert!(!response.bytes().await.unwrap().is_empty(), "{file}");
    }
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_every_call_needs_it_and_without_one_only_loopback_is_served() {
    let with_token = Options {
        token: Some("s3cret".parse().unwrap()),
        ..options()
    };
    let (world, api, reserver) = World::with_options(with_token).await;
    for (method, path) in [
        (Method::GET, "/v1/stock"),
        (Method::POST, "/v1/holds"),
        (Method::POST, "/holds/reserve"),
        (Method::PUT, "/v1/skus/a"),
    ] {
        let said = Said::read(api.call(method, path).bearer_auth("wrong").send().await.unwrap()).await;
        said.is_problem(401, "unauthorized");
        assert_eq!(said.header("www-authenticate"), "Bearer");
    }
    let said = api
        .call(Method::GET, "/v1/stock")
        .bearer_auth("s3cret")
        .send()
        .await
        .unwrap();
    assert_eq!(said.status(), 200);
    for open in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(
            api.call(Method::GET, open).send().await.unwrap().status(),
            200,
            "{open}"
        );
    }

    let everywhere = Options {
        http_addr: ([0, 0, 0, 0], 0).into(),
        ..options()
    };
    let (_, stop) = plumbing::stop::pair();
    let context = plumbing::service::Context::new("ingress", stop);
    let refused = ingress::start(world.connections.clone(), everywhere, context).await;
    assert!(refused.unwrap_err().to_string().contains("HOLDFAST_TOKEN"));
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_told_so() {
    let one = Options {
        in_flight_max: 1,
        ..options()
    };
    let (world, api, mut reserver) = World::with_options(one).await;
    let body = json!({"lines": [{"sku": sku_in(0).as_str(), "quantity": 1}], "user_id": "u"});
    let decide = async {
        let asked = reserver.next().await;
        api.get("/v1/stock").await.is_problem(429, "too_many_requests");
        let created = reserver.created(&asked);
        reserver.decide(&asked, created).await;
    };
    let (response, ()) = join!(api.post("/v1/holds", &body).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    assert_eq!(api.get("/v1/stock").await.status, 200);
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_in_flight() {
    let (world, api, mut reserver) = World::with_all().await;
    let body = json!({"lines": [{"sku": sku_in(0).as_str(), "quantity": 1}], "user_id": "u"});
    let Api { .. } = &api;
    let stopper = api.stopper();
    let decide = async {
        let asked = reserver.next().await;
        stopper.stop();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let created = reserver.created(&asked);
        reserver.decide(&asked, created).await;
    };
    let (response, ()) = join!(api.post("/v1/holds", &body).send(), decide);
    assert_eq!(response.unwrap().status(), 201);
    assert!(
        api.call(Method::GET, "/livez").send().await.is_err(),
        "nothing new is accepted"
    );
    world.end(api, reserver).await;
}
