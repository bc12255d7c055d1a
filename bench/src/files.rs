//! How many files, and so connections, this process and those that it starts may have open.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process has open beside the connections of a load.
const OTHERS: u64 = 300;

/// Raises the limit of open files (`ulimit -n`) so far that a load of so many connections fits.
///
/// # Errors
/// The hard limit is lower; the message says what to do.
pub fn allow(connections: usize) -> anyhow::Result<()> {
    let wanted = connections as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < wanted) {
        bail!(
            "{connections} connections need {wanted} open files, and this user may have {maximum}: raise the hard limit \
             (as root: `ulimit -Hn {wanted}`, or LimitNOFILE= of the service), or ask for fewer connections"
        );
    }
    let raised = Rlimit {
        current: limit.maximum.map_or(Some(wanted), |maximum| Some(maximum.max(wanted))),
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be_and_no_further() {
        let limit = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(1_000),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        allow(100).unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(1_000), "it was enough");
        allow(1_000).unwrap();
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|files| files >= 1_300));
        if limit.maximum.is_some() {
            let refused = allow(usize::MAX / 4).unwrap_err().to_string();
            assert!(refused.contains("ulimit -Hn"), "{refused}");
        }
    }
}
