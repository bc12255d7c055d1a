//! axum on Redis alone: one script call decides and remembers the key.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use redis::{AsyncCommands, Script, aio::MultiplexedConnection};

use super::{Request, Stores, answer};

const RESERVE: &str = "\
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
if tonumber(redis.call('HGET', KEYS[1], 'available')) < tonumber(ARGV[1]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'available', -ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return 1";

#[derive(Clone)]
struct Shop {
    connection: MultiplexedConnection,
    script: &'static Script,
    prefix: &'static str,
}

pub(super) async fn router(stores: &Stores, skus: &[String], units: i64) -> anyhow::Result<Router> {
    let mut connection = plumbing::redis::client(stores.redis_url.expose())?
        .get_multiplexed_async_connection()
        .await?;
    for sku in skus {
        let key = format!("{}:stock:{sku}", stores.redis_prefix);
        let _: i64 = connection.hset(key, "available", units).await?;
    }
    // Both live as long as the process.
    let shop = Shop {
        connection,
        script: Box::leak(Box::new(Script::new(RESERVE))),
        prefix: Box::leak(stores.redis_prefix.clone().into_boxed_str()),
    };
    Ok(Router::new().route("/reserve", post(reserve)).with_state(shop))
}

async fn reserve(State(mut shop): State<Shop>, Json(request): Json<Request>) -> Response {
    let held: redis::RedisResult<bool> = shop
        .script
        .key(format!("{}:stock:{}", shop.prefix, request.sku))
        .key(format!("{}:hold:{}", shop.prefix, request.key))
        .arg(request.quantity)
        .arg(&request.user_id)
        .invoke_async(&mut shop.connection)
        .await;
    match held {
        Ok(held) => answer(request.key, held),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
