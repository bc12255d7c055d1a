//! How many files, and so connections, this process and those that it starts may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files (`ulimit -Sn`, often 1,024) to the hard one; that limit, `None` for none.
///
/// The soft limit guards programs that `select`, which nothing here does.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current, // It stays as it was.
    }
}
