//! Bad input is a 4xx problem with a stable code, and nothing of it reaches the log.

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::world::{Said, World, sku_in};

/// Bodies of `POST /v1/holds` that are wrong, as bytes.
fn bad_reserves() -> Vec<(&'static str, Vec<u8>)> {
    let sku = sku_in(0);
    let with_quantity =
        |quantity: &str| format!(r#"{{"lines":[{{"sku":"{sku}","quantity":{quantity}}}],"user_id":"u"}}"#).into_bytes();
    let with_sku = |sku: &str| {
        json!({"lines": [{"sku": sku, "quantity": 1}], "user_id": "u"})
            .to_string()
            .into_bytes()
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({"lines": [{"sku": sku.as_str(), "quantity": 1}], "user_id": "u"});
        change(&mut body);
        body.to_string().into_bytes()
    };
    let mut bad: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for quantity in [
        "0",
        "-1",
        "-0",
        "1.5",
        "1.0",
        "1e3",
        "\"5\"",
        "2147483648",
        "9223372036854775808",
        "1e400",
        "NaN",
        "null",
        "[1]",
        "true",
        "1000001",
        "0x10",
        "01",
        "18446744073709551616",
    ] {
        bad.push(("quantity", with_quantity(quantity)));
    }
    for sku in [
        "{a}",
        "a:b",
        "a\r\nb",
        "a\0b",
        "",
        " ",
        "a b",
        "ä",
        "a/b",
        &"x".repeat(65),
        &"x".repeat(4096),
    ] {
        bad.push(("sku", with_sku(sku)));
    }
    let many = json!(vec![json!({"sku": sku.as_str(), "quantity": 1}); 51]);
    bad.push(("51 lines", with(&|body| body["lines"] = many.clone())));
    bad.push(("no lines", with(&|body| body["lines"] = json!([]))));
    let two = json!([{"sku": sku.as_str(), "quantity": 1_000_000}, {"sku": sku.as_str(), "quantity": 1}]);
    bad.push(("a sum", with(&|body| body["lines"] = two.clone())));
    for user_id in [json!(""), json!("a\nb"), json!("x".repeat(129)), json!(7), Value::Null] {
        bad.push(("user_id", with(&|body| body["user_id"] = user_id.clone())));
    }
    for ttl in [
        json!(0),
        json!(-1),
        json!(3601),
        json!(1.5),
        json!("60"),
        json!(i64::MAX),
    ] {
        bad.push(("ttl_seconds", with(&|body| body["ttl_seconds"] = ttl.clone())));
    }
    bad.push(("policy", with(&|body| body["policy"] = json!("some"))));
    bad.push((
        "external_ref",
        with(&|body| body["external_ref"] = json!("x".repeat(256))),
    ));
    bad.push(("an unknown field", with(&|body| body["quantity"] = json!(1))));
    bad.push(("a field twice", br#"{"user_id":"a","user_id":"b","lines":[]}"#.to_vec()));
    for text in [
        "",
        "{",
        "null",
        "[]",
        "5",
        "\"x\"",
        "{} {}",
        "{\"lines\":",
        "\u{feff}{}",
    ] {
        bad.push(("malformed", text.as_bytes().to_vec()));
    }
    bad.push(("invalid UTF-8", b"{\"lines\":[],\"user_id\":\"\xff\xfe\"}".to_vec()));
    bad.push((
        "deep nesting",
        ["[".repeat(20_000), "]".repeat(20_000)].concat().into_bytes(),
    ));
    bad.push((
        "deep nesting in a field",
        format!(r#"{{"user_id":{}"#, "[".repeat(30_000)).into_bytes(),
    ));
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_problem_and_nothing_is_in_the_log() {
    let (world, api, reserver) = World::with_all().await;
    let post = |path: &str, body: Vec<u8>| {
        api.call(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
    };
    for (what, body) in bad_reserves() {
        let text = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        let said = Said::read(post("/v1/holds", body).send().await.unwrap()).await;
        assert_eq!(said.status, 400, "{what}: {text}");
        said.is_problem(400, "invalid_request");
        assert!(said.body["detail"].as_str().unwrap().len() < 500, "{what}: {said:?}");
    }

    let hold = "/v1/holds/000e2be4-9d35-8aa6-a571-1a9ffd9d8aab";
    for (path, body) in [
        (format!("{hold}/confirm"), json!({})),
        (format!("{hold}/confirm"), json!({"payment_ref": ""})),
        (format!("{hold}/confirm"), json!({"payment_ref": "x".repeat(256)})),
        (format!("{hold}/cancel"), json!({"reason": 1})),
        (format!("{hold}/cancel"), json!({"why": "typo"})),
        (format!("{hold}/extend"), json!({"ttl_seconds": 0})),
        (format!("{hold}/extend"), json!({})),
        ("/v1/holds/not-a-hold/cancel".to_owned(), json!({})),
        ("/v1/holds/%FF/cancel".to_owned(), json!({})),
        (
            "/v1/holds/8f9c0f5e-2a3b-4c4d-8e5f-6a7b8c9d0e1f/cancel".to_owned(),
            json!({}),
        ),
        ("/v1/stock/adjustments".to_owned(), json!({"sku": "a", "reason": "r"})),
        (
            "/v1/stock/adjustments".to_owned(),
            json!({"sku": "a", "change": 1, "set": 1, "reason": "r"}),
        ),
        ("/v1/stock/adjustments".to_owned(), json!({"sku": "a", "change": 1})),
        (
            "/v1/stock/adjustments".to_owned(),
            json!({"sku": "a", "change": 0, "reason": "r"}),
        ),
        (
            "/v1/stock/adjustments".to_owned(),
            json!({"sku": "a", "set": -1, "reason": "r"}),
        ),
        (
            "/v1/stock/adjustments".to_owned(),
            json!({"sku": "a", "change": 1, "expected": -1, "reason": "r"}),
        ),
        (
            "/v1/stock/adjustments".to_owned(),
            json!({"sku": "a", "set": 1_000_000_000_001_i64, "reason": "r"}),
        ),
        (
            "/holds/reserve".to_owned(),
            json!({"sku": "a", "qty": 0, "user_id": "u", "idempotency_key": "k"}),
        ),
        (
            "/holds/reserve".to_owned(),
            json!({"sku": "a", "qty": 1, "user_id": "u", "idempotency_key": ""}),
        ),
        (
            "/holds/reserve".to_owned(),
            json!({"sku": "a", "qty": 1, "user_id": "u"}),
        ),
        ("/holds/confirm".to_owned(), json!({"hold_id": "x", "payment_ref": "p"})),
        ("/holds/cancel".to_owned(), json!({"hold_id": ""})),
    ] {
        let said = Said::read(post(&path, body.to_string().into_bytes()).send().await.unwrap()).await;
        assert_eq!(said.status, 400, "{path} {body}: {said:?}");
        said.is_problem(400, "invalid_request");
    }
    for body in [
        json!({"safety_stock": -1}),
        json!({"max_per_user": 0}),
        json!({"safety_stock": 1.5}),
        json!([]),
    ] {
        let said = Said::read(api.call(Method::PUT, "/v1/skus/a").json(&body).send().await.unwrap()).await;
        said.is_problem(400, "invalid_request");
    }
    assert_eq!(world.commands_in_log().await, 0);
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_keys_bodies_and_paths_are_problems_too() {
    let (world, api, reserver) = World::with_all().await;
    let good = json!({"lines": [{"sku": sku_in(0).as_str(), "quantity": 1}], "user_id": "u"});
    for keys in [
        vec![""],
        vec!["a", "b"],
        vec!["a b"],
        vec!["ä"],
        vec![&*"k".repeat(256)],
        vec!["a", "a"],
    ] {
        let mut request = api.post("/v1/holds", &good);
        for key in &keys {
            request = request.header("Idempotency-Key", *key);
        }
        let said = Said::read(request.send().await.unwrap()).await;
        assert_eq!(said.status, 400, "{keys:?}");
        said.is_problem(400, "invalid_request");
    }

    for size in [64 * 1024 + 1, 1024 * 1024] {
        let mut body = good.to_string().into_bytes();
        body.resize(size, b' ');
        let request = api
            .call(Method::POST, "/v1/holds")
            .header(header::CONTENT_TYPE, "application/json");
        Said::read(request.body(body).send().await.unwrap())
            .await
            .is_problem(413, "payload_too_large");
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "json",
        "",
    ] {
        let request = api.call(Method::POST, "/v1/holds").header(header::CONTENT_TYPE, kind);
        let said = Said::read(request.body(good.to_string()).send().await.unwrap()).await;
        said.is_problem(415, "unsupported_media_type");
    }

    for path in ["/v1/nothing", "/", "/v1/holds/", "/holds"] {
        api.get(path).await.is_problem(404, "not_found");
    }
    for (method, path) in [
        (Method::DELETE, "/v1/holds"),
        (Method::GET, "/holds/reserve"),
        (Method::POST, "/v1/stock/a"),
        (Method::PATCH, "/v1/skus/a"),
    ] {
        let said = Said::read(api.call(method, path).send().await.unwrap()).await;
        said.is_problem(405, "method_not_allowed");
        assert!(!said.header("allow").is_empty(), "{path}: {said:?}");
    }
    for path in [
        "/v1/holds?user=u",
        "/v1/holds?state=pendant",
        "/v1/holds?limit=0",
        "/v1/holds?limit=many",
        "/v1/holds?cursor=x",
        "/v1/holds?user_id=a&user_id=b",
        "/v1/holds?sku=%7B%7D",
        "/v1/holds/x",
        "/v1/holds/000e2be4-9d35-8aa6-a571-1a9ffd9d8aab?command=-1",
        "/v1/stock/a%00b",
        "/v1/stock/%FF",
        "/v1/stock?sku=a&limit=1",
        "/v1/stock?skus=a",
    ] {
        api.get(path).await.is_problem(400, "invalid_request");
    }
    // A lane that is not there: no such hold, and nothing is asked.
    let elsewhere = "/v1/holds/fffe2be4-9d35-8aa6-a571-1a9ffd9d8aab";
    api.get(elsewhere).await.is_problem(404, "hold_not_found");
    let said = Said::read(
        api.call(Method::POST, &format!("{elsewhere}/cancel"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    said.is_problem(404, "hold_not_found");
    assert_eq!(world.commands_in_log().await, 0);
    world.end(api, reserver).await;
}
