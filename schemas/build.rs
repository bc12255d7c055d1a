//! `sqlx::migrate!` reads `migrations/` while this crate is compiled; cargo does not see a new file there by itself.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
