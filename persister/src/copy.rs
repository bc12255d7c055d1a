//! Rows in Postgres' binary COPY format, the cheapest way in: <https://www.postgresql.org/docs/15/sql-copy.html>.

use sqlx::PgConnection;
use uuid::Uuid;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// No flags, no extension.
const HEADER: [u8; 8] = [0; 8];
const END: i16 = -1;
const NULL: i32 = -1;
/// The only version of jsonb's binary form.
const JSONB: u8 = 1;

/// Rows of one table on their way in. Each value is written in the order of the columns.
pub(crate) struct Copy {
    columns: i16,
    bytes: Vec<u8>,
}

impl Copy {
    /// For about so many rows of so many columns.
    pub(crate) fn new(columns: i16, rows: usize) -> Self {
        let mut bytes =
            Vec::with_capacity(SIGNATURE.len() + HEADER.len() + rows * 16 * columns.unsigned_abs() as usize);
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&HEADER);
        Self { columns, bytes }
    }

    /// Begins a row.
    pub(crate) fn row(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    fn value(&mut self, parts: &[&[u8]]) -> &mut Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = i32::try_from(length).expect("a record of Kafka is far smaller than 2 GiB");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self
    }

    fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&NULL.to_be_bytes());
        self
    }

    /// `smallint`
    pub(crate) fn small(&mut self, number: i16) -> &mut Self {
        self.value(&[&number.to_be_bytes()])
    }

    /// `bigint`
    pub(crate) fn big(&mut self, number: i64) -> &mut Self {
        self.value(&[&number.to_be_bytes()])
    }

    /// `bigint`, or NULL
    pub(crate) fn some_big(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.big(number),
            None => self.null(),
        }
    }

    /// `uuid`
    pub(crate) fn uuid(&mut self, uuid: Uuid) -> &mut Self {
        self.value(&[uuid.as_bytes()])
    }

    /// `uuid`, or NULL
    pub(crate) fn some_uuid(&mut self, uuid: Option<Uuid>) -> &mut Self {
        match uuid {
            Some(uuid) => self.uuid(uuid),
            None => self.null(),
        }
    }

    /// `text`
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.value(&[text.as_bytes()])
    }

    /// `text`, or NULL
    pub(crate) fn some_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// `bytea`
    pub(crate) fn octets(&mut self, bytes: &[u8]) -> &mut Self {
        self.value(&[bytes])
    }

    /// `jsonb` from its text, or NULL
    pub(crate) fn some_json(&mut self, json: Option<&str>) -> &mut Self {
        match json {
            Some(json) => self.value(&[&[JSONB], json.as_bytes()]),
            None => self.null(),
        }
    }

    /// Writes the rows into `place`: a table with its columns.
    pub(crate) async fn into(mut self, connection: &mut PgConnection, place: &str) -> Result<(), sqlx::Error> {
        self.bytes.extend_from_slice(&END.to_be_bytes());
        let statement = format!("COPY {place} FROM STDIN WITH (FORMAT binary)");
        let mut rows = connection.copy_in_raw(&statement).await?;
        rows.send(self.bytes).await?;
        rows.finish().await?;
        Ok(())
    }
}
