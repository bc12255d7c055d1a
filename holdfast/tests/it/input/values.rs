//! Values that no call takes: numbers, SKUs, texts.

use serde_json::json;

use super::Bad;

/// What is no number of units: JSON texts.
pub(super) const NO_QUANTITIES: [&str; 20] = [
    "0",
    "-1",
    "-0",
    "1.5",
    "1.0",
    "1e3",
    "1E0",
    "\"5\"",
    "2147483648",
    "1000001",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "1e400",
    "NaN",
    "Infinity",
    "null",
    "true",
    "[1]",
];

/// What is no SKU: JSON texts.
pub(super) fn no_skus() -> Vec<String> {
    let long = "x".repeat(4_096);
    let texts = [
        "",
        "{}",
        "{mug}",
        "a:b",
        "a\r\nb",
        "a\n",
        "a\0b",
        "\0",
        " ",
        "a b",
        "a/b",
        "a%20b",
        "ä",
        "a\u{200b}",
        "..\\",
        "*",
        &long,
        &long[..65],
    ];
    let mut all: Vec<_> = texts.iter().map(|text| json!(text).to_string()).collect();
    all.extend(["null", "7", "[\"mug\"]", "{\"a\":1}"].map(str::to_owned));
    all
}

pub(super) fn reserve_body(sku: &str, quantity: &str) -> String {
    format!(r#"{{"lines":[{{"sku":{sku},"quantity":{quantity}}}],"user_id":"ann"}}"#)
}

pub(super) fn short_body(sku: &str, quantity: &str, key: &str) -> String {
    format!(r#"{{"sku":{sku},"qty":{quantity},"user_id":"ann","idempotency_key":{key}}}"#)
}

pub(super) fn adjust_body(sku: &str, how: &str) -> String {
    format!(r#"{{"sku":{sku},{how},"reason":"test"}}"#)
}

pub(super) fn quantities_and_skus() -> Vec<Bad> {
    let mut all = Vec::new();
    for quantity in NO_QUANTITIES {
        let what = format!("quantity {quantity}");
        all.push(Bad::post(&what, "/v1/holds", reserve_body("\"mug\"", quantity)));
        all.push(Bad::post(
            &what,
            "/holds/reserve",
            short_body("\"mug\"", quantity, "\"k\""),
        ));
    }
    for sku in no_skus() {
        let what = format!("SKU {}", sku.chars().take(40).collect::<String>());
        all.push(Bad::post(&what, "/v1/holds", reserve_body(&sku, "1")));
        all.push(Bad::post(&what, "/holds/reserve", short_body(&sku, "1", "\"k\"")));
        all.push(Bad::post(
            &what,
            "/v1/stock/adjustments",
            adjust_body(&sku, "\"change\":1"),
        ));
    }
    for sku in [
        "%7B%7D",
        "a%3Ab",
        "a%0D%0Ab",
        "a%00b",
        "%00",
        "a%2Fb",
        "%C3%A4",
        "%FF",
        "%20",
        &"x".repeat(65),
    ] {
        all.push(Bad::post("a SKU in the path", format!("/v1/skus/{sku}"), r#"{"safety_stock":1}"#).put());
        all.push(Bad::get(format!("/v1/stock/{sku}")));
        all.push(Bad::get(format!("/v1/stock?sku=mug&sku={sku}")));
    }
    all
}

pub(super) fn fields(hold: &str) -> Vec<Bad> {
    let lines = vec![json!({"sku": "mug", "quantity": 1}); 51];
    let many = json!({"lines": lines, "user_id": "ann"}).to_string();
    let sum =
        json!({"lines": [{"sku": "mug", "quantity": 1_000_000}, {"sku": "mug", "quantity": 1}], "user_id": "ann"});
    let reserve = |more: &str| format!(r#"{{"lines":[{{"sku":"mug","quantity":1}}],"user_id":"ann",{more}}}"#);
    let post = |what: &str, body: &str| Bad::post(what, "/v1/holds", body);
    let mut all = vec![
        post("51 lines", &many),
        post("lines that add up to too many units", &sum.to_string()),
        post("no line", r#"{"lines":[],"user_id":"ann"}"#),
        post("lines that are none", r#"{"lines":{},"user_id":"ann"}"#),
        post("no lines at all", r#"{"user_id":"ann"}"#),
        post("no user", r#"{"lines":[{"sku":"mug","quantity":1}]}"#),
        post(
            "an empty user",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":""}"#,
        ),
        post(
            "a user with a line break",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":"a\nb"}"#,
        ),
        post("a long user", &reserve("\"x\":1").replace("ann", &"u".repeat(129))),
        post(
            "a number for a user",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":7}"#,
        ),
        post("a field twice", &reserve("\"user_id\":\"bob\"")),
        post(
            "a line without a quantity",
            r#"{"lines":[{"sku":"mug"}],"user_id":"ann"}"#,
        ),
        post("a line that is an array", r#"{"lines":[["mug",1]],"user_id":"ann"}"#),
        post(
            "a line with another field",
            r#"{"lines":[{"sku":"mug","quantity":1,"price":3}],"user_id":"ann"}"#,
        ),
        post("an unknown policy", &reserve("\"policy\":\"best_effort\"")),
        post(
            "a long reference",
            &reserve(&format!("\"external_ref\":\"{}\"", "r".repeat(256))),
        ),
    ];
    for ttl in ["0", "-1", "3601", "1.5", "\"60\"", "1e2", "9223372036854775807"] {
        all.push(post(
            &format!("a ttl of {ttl}"),
            &reserve(&format!("\"ttl_seconds\":{ttl}")),
        ));
        let body = format!("{{\"ttl_seconds\":{ttl}}}");
        all.push(Bad::post(
            format!("an extension by {ttl}"),
            format!("/v1/holds/{hold}/extend"),
            body,
        ));
    }
    for payment in [
        "\"\"",
        "7",
        "null",
        "\"a\\u0000b\"",
        &format!("\"{}\"", "p".repeat(256)),
    ] {
        let short = payment.chars().take(20).collect::<String>();
        let body = format!("{{\"payment_ref\":{payment}}}");
        all.push(Bad::post(
            format!("payment {short}"),
            format!("/v1/holds/{hold}/confirm"),
            body,
        ));
        let body = format!("{{\"hold_id\":\"{hold}\",\"payment_ref\":{payment}}}");
        all.push(Bad::post(format!("payment {short}"), "/holds/confirm", body));
    }
    let reason = json!({"reason": "r".repeat(256)}).to_string();
    all.push(Bad::post("a long reason", format!("/v1/holds/{hold}/cancel"), reason));
    all
}

pub(super) fn stock() -> Vec<Bad> {
    let post = |how: &str| {
        Bad::post(
            format!("adjusting by {how}"),
            "/v1/stock/adjustments",
            adjust_body("\"mug\"", how),
        )
    };
    let mut all: Vec<Bad> = [
        "\"change\":0",
        "\"change\":1.5",
        "\"change\":1e3",
        "\"change\":\"5\"",
        "\"change\":9223372036854775808",
        "\"change\":1000000000001",
        "\"change\":1,\"set\":1",
        "\"change\":null",
        "\"set\":-1",
        "\"set\":1000000000001",
        "\"set\":NaN",
        "\"set\":1,\"expected\":-1",
        "\"set\":1,\"expected\":\"x\"",
        "\"set\":1,\"reference\":7",
        "\"unit\":1",
    ]
    .into_iter()
    .map(post)
    .collect();
    let adjusting = |what: &str, body: &str| Bad::post(what, "/v1/stock/adjustments", body);
    all.push(adjusting("no reason", r#"{"sku":"mug","change":1}"#));
    all.push(adjusting("an empty reason", r#"{"sku":"mug","change":1,"reason":""}"#));
    let actor = || adjusting("an actor", &adjust_body("\"mug\"", "\"change\":1"));
    all.extend([&b""[..], b"\xc3\xa4", &[b'a'; 256]].map(|name| actor().with("x-actor", name)));
    for policy in [
        r#"{"safety_stock":-1}"#,
        r#"{"safety_stock":1.5}"#,
        r#"{"safety_stock":1000000000001}"#,
        r#"{"max_per_user":0}"#,
        r#"{"max_per_user":"2"}"#,
        r#"{"max":1}"#,
    ] {
        all.push(Bad::post(format!("policy {policy}"), "/v1/skus/mug", policy).put());
    }
    all
}
