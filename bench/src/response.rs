//! Just enough HTTP/1.1 to know where an answer ends.

/// The status and the length of a whole answer at the beginning of `bytes`; `None` while some of it is missing.
///
/// # Errors
/// It is no answer of a kind that the servers under test give (a length, no chunks).
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(u16, usize)>, &'static str> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = bytes[..head].split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix(b"HTTP/1.1 "))
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
        .ok_or("no HTTP/1.1 status line")?;
    const NAME: &[u8] = b"content-length:";
    let length: usize = lines
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok())
        .ok_or("an answer without content-length")?;
    let whole = head + 4 + length;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(answer), Ok(Some((201, answer.len()))));
        for cut in [0, 10, answer.len() - 3, answer.len() - 1] {
            assert_eq!(parse(&answer[..cut]), Ok(None), "{cut}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SMTP\r\n\r\n").is_err());
    }
}
