//! Whether so many connections fit into this process.

use anyhow::ensure;

/// What a process has open beside the connections of a load.
const OTHERS: u64 = 300;

/// Raises the limit of open files as far as it goes, for this process and those that it starts.
///
/// # Errors
/// A load of so many connections does not fit all the same; the message says what to do.
pub fn allow(connections: usize) -> anyhow::Result<()> {
    let wanted = connections as u64 + OTHERS;
    let limit = plumbing::files::raise_limit();
    ensure!(
        limit.is_none_or(|limit| limit >= wanted),
        "{connections} connections need {wanted} open files, and this user may have {}: raise the hard limit \
         (as root: `ulimit -Hn {wanted}`, or LimitNOFILE= of the service), or ask for fewer connections",
        limit.unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_allowed_and_what_does_not_says_what_to_do() {
        allow(100).unwrap();
        if plumbing::files::raise_limit().is_some() {
            let refused = allow(usize::MAX / 4).unwrap_err().to_string();
            assert!(refused.contains("ulimit -Hn"), "{refused}");
        }
    }
}
