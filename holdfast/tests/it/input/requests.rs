//! Requests that are wrong as a whole: keys, ids, bodies, methods, paths.

use reqwest::Method;
use serde_json::json;

use super::{
    Bad,
    values::{adjust_body, reserve_body, short_body},
};

/// Every call that takes a body, with a good one.
pub(super) fn calls(hold: &str) -> Vec<(Method, String, String)> {
    let post = |path: String, body: &str| (Method::POST, path, body.to_owned());
    vec![
        post("/v1/holds".to_owned(), &reserve_body("\"mug\"", "1")),
        post(format!("/v1/holds/{hold}/confirm"), r#"{"payment_ref":"p"}"#),
        post(format!("/v1/holds/{hold}/cancel"), r#"{"reason":"r"}"#),
        post(format!("/v1/holds/{hold}/extend"), r#"{"ttl_seconds":60}"#),
        post(
            "/v1/stock/adjustments".to_owned(),
            &adjust_body("\"mug\"", "\"change\":1"),
        ),
        (
            Method::PUT,
            "/v1/skus/mug".to_owned(),
            r#"{"safety_stock":1}"#.to_owned(),
        ),
        post(
            "/v1/stock/returns".to_owned(),
            r#"{"sku":"mug","quantity":1,"reason":"r"}"#,
        ),
        (
            Method::PUT,
            "/v1/prices/mug".to_owned(),
            r#"{"amount":1,"currency":"eur"}"#.to_owned(),
        ),
        post(format!("/v1/holds/{hold}/checkout"), r#"{"capture_method":"manual"}"#),
        post(format!("/v1/admin/failed/{hold}/retry"), r#"{"reason":"r"}"#),
        post(format!("/v1/orders/{hold}/refunded"), r#"{"reason":"r"}"#),
        post(format!("/v1/orders/{hold}/returns"), r#"{"reason":"r"}"#),
        post("/holds/reserve".to_owned(), &short_body("\"mug\"", "1", "\"k\"")),
        post(
            "/holds/confirm".to_owned(),
            &json!({"hold_id": hold, "payment_ref": "p"}).to_string(),
        ),
        post("/holds/cancel".to_owned(), &json!({"hold_id": hold}).to_string()),
    ]
}

/// The same bodies as arrays of their values, which a JSON library may take for objects.
pub(super) fn as_arrays(hold: &str) -> Vec<Bad> {
    let post = |path: String, values: serde_json::Value| Bad::post("an array of values", path, values.to_string());
    vec![
        post(
            "/v1/holds".to_owned(),
            json!([[{"sku": "mug", "quantity": 1}], "ann", null, null, null]),
        ),
        post(format!("/v1/holds/{hold}/confirm"), json!(["p"])),
        post(format!("/v1/holds/{hold}/cancel"), json!(["r"])),
        post(format!("/v1/holds/{hold}/extend"), json!([60])),
        post(
            "/v1/stock/adjustments".to_owned(),
            json!(["mug", 1, null, null, "test", null]),
        ),
        post("/v1/skus/mug".to_owned(), json!([1, null])).put(),
        post("/v1/stock/returns".to_owned(), json!(["mug", 1, "r", null, null])),
        post("/v1/prices/mug".to_owned(), json!([1, "eur"])).put(),
        post(format!("/v1/holds/{hold}/checkout"), json!(["manual"])),
        post(format!("/v1/admin/failed/{hold}/retry"), json!(["r", "ann"])),
        post(format!("/v1/orders/{hold}/refunded"), json!(["r", "ann"])),
        post(format!("/v1/orders/{hold}/returns"), json!(["r", "ann", null])),
        post("/holds/reserve".to_owned(), json!(["mug", 1, "ann", "k"])),
        post("/holds/confirm".to_owned(), json!([hold, "p"])),
        post("/holds/cancel".to_owned(), json!([hold])),
    ]
}

pub(super) fn keys(hold: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    let long = [b'k'; 256];
    for key in [&b""[..], &long, b"a b", b"a\tb", b"\xc3\xa4", b"\xff"] {
        let what = format!("a key of {} bytes: {:.10}", key.len(), String::from_utf8_lossy(key));
        for (method, path, body) in calls(hold) {
            // The others are named by their hold or by a field of their body.
            let is_named = ["/v1/holds", "/v1/skus/mug"].contains(&path.as_str())
                || path.starts_with("/v1/stock/")
                || path.ends_with("/extend");
            if is_named || path.ends_with("/returns") {
                let mut bad = Bad::post(&what, path, body).with("idempotency-key", key);
                bad.method = method;
                all.push(bad);
            }
        }
        let text = json!(String::from_utf8_lossy(key)).to_string();
        all.push(Bad::post(&what, "/holds/reserve", short_body("\"mug\"", "1", &text)));
    }
    let twice = Bad::post("two keys", "/v1/holds", reserve_body("\"mug\"", "1"));
    all.push(twice.with("idempotency-key", "a").with("idempotency-key", "b"));
    for id in [
        "x",
        "7",
        "00000000-0000-4000-8000-000000000000",
        "{}",
        "00020000000080008000000000000000",
    ] {
        let path = id.replace('{', "%7B").replace('}', "%7D");
        all.push(Bad::post(
            "no hold id",
            format!("/v1/holds/{path}/confirm"),
            r#"{"payment_ref":"p"}"#,
        ));
        all.push(Bad::post("no hold id", format!("/v1/holds/{path}/cancel"), ""));
        all.push(Bad::post(
            "no hold id",
            format!("/v1/holds/{path}/extend"),
            r#"{"ttl_seconds":1}"#,
        ));
        all.push(Bad::post("no hold id", format!("/v1/holds/{path}/checkout"), ""));
        for what in [
            "/v1/holds/{}",
            "/v1/holds/{}/payment",
            "/v1/orders/{}",
            "/v1/admin/failed/{}",
        ] {
            all.push(Bad::get(what.replace("{}", &path)));
        }
        all.push(Bad::post(
            "no hold id",
            "/holds/confirm",
            json!({"hold_id": id, "payment_ref": "p"}).to_string(),
        ));
        all.push(Bad::post(
            "no hold id",
            "/holds/cancel",
            json!({"hold_id": id}).to_string(),
        ));
    }
    // A hold of a lane that does not exist.
    let nowhere = "fffa2774-9426-80a8-b1c5-ca7e69a1d0a8";
    let confirm = Bad::post(
        "no such lane",
        format!("/v1/holds/{nowhere}/confirm"),
        r#"{"payment_ref":"p"}"#,
    );
    all.push(confirm.told(404, "hold_not_found"));
    all.push(Bad::get(format!("/v1/holds/{nowhere}")).told(404, "hold_not_found"));
    all
}

/// What is wrong with any body, for every call that takes one.
pub(super) fn bodies(hold: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    for (method, path, good) in calls(hold) {
        let bad = |what: &str, body: Vec<u8>| {
            let mut bad = Bad::post(format!("{what} to {path}"), path.clone(), body);
            bad.method = method.clone();
            bad
        };
        let unknown = good.replacen('{', "{\"surprise\":1,", 1).into_bytes();
        let mut not_utf8 = good.clone().into_bytes();
        not_utf8.splice(2..2, [0xff, 0xfe]);
        let mut text_not_utf8 = good.clone().into_bytes();
        let quote = text_not_utf8.iter().position(|byte| *byte == b'"').expect("a name");
        text_not_utf8.insert(quote + 1, 0xc3);
        let mut large = good.clone().into_bytes();
        large.resize(64 * 1024 + 1, b' ');
        all.push(bad("an unknown field", unknown));
        all.push(bad("invalid UTF-8", not_utf8));
        all.push(bad("invalid UTF-8 in a text", text_not_utf8));
        all.push(bad("deep arrays", vec![b'['; 60_000]));
        all.push(bad("deep objects", "{\"lines\":".repeat(7_000).into_bytes()));
        all.push(bad("half a body", good.as_bytes()[..good.len() - 1].to_vec()));
        all.push(bad("two bodies", format!("{good}{good}").into_bytes()));
        all.push(bad("an array", b"[]".to_vec()));
        all.push(bad("64 KiB + 1", large).told(413, "payload_too_large"));
        let may_be_absent = path.ends_with("/checkout") || path.ends_with("/cancel") && path != "/holds/cancel";
        if !may_be_absent {
            all.push(bad("no body", Vec::new()));
            all.push(bad("null", b"null".to_vec())); // Where a body may be absent, this is none.
        }
        if !may_be_absent && path != "/v1/skus/mug" {
            all.push(bad("no field", b"{}".to_vec()));
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application", ""] {
            let wrong = bad("another content type", good.clone().into_bytes()).with("content-type", kind);
            all.push(wrong.told(415, "unsupported_media_type"));
        }
        let mut method = bad("a wrong method", good.into_bytes()).told(405, "method_not_allowed");
        method.method = Method::DELETE;
        all.push(method);
    }
    all
}

pub(super) fn paths() -> Vec<Bad> {
    let mut all: Vec<_> = [
        "/v1",
        "/v1/hold",
        "/v2/holds",
        "/v1/holds/",
        "/v1/holds/x/pay",
        "/%00",
        "/../etc/passwd",
    ]
    .into_iter()
    .flat_map(|path| [Bad::get(path), Bad::post("an unknown path", path, "{}")])
    .map(|bad| bad.told(404, "not_found"))
    .collect();
    all.extend(
        [
            "/v1/holds?limit=0",
            "/v1/holds?limit=1e2",
            "/v1/holds?state=lost",
            "/v1/holds?sku=%7B%7D",
            "/v1/holds?user_id=",
            "/v1/holds?cursor=x",
            "/v1/holds?user=ann",
            "/v1/holds?limit=1&limit=2",
            "/v1/stock?limit=-1",
            "/v1/stock?cursor=%00",
            "/v1/stock/mug?command=x",
            "/v1/stock/mug?command=-1",
            "/v1/orders?limit=2",
            "/v1/orders?state=lost",
            "/v1/orders/x",
            "/v1/admin/failed?state=paid",
            "/v1/admin/failed?x=1",
            "/v1/orders/%FF",
            "/v1/prices/%FF",
            "/v1/holds/%FF/payment",
            "/v1/prices?limit=1",
            "/v1/prices/%7B%7D",
            "/v1/holds/x/payment",
        ]
        .map(Bad::get),
    );
    all
}
