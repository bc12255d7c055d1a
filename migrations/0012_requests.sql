-- Requests that a lane has refused, for as long as a producer may still write their records again (two minutes of log time).

CREATE TABLE refused_requests (
    lane       smallint NOT NULL,
    decided_at bigint NOT NULL, -- Log time, in milliseconds.
    mark       bigint NOT NULL -- 64 bits of SHA-256 over tenant and request id.
);
COMMENT ON TABLE refused_requests IS 'What a rebuilt lane must not decide again; deleted after an hour';
-- In a sale most requests are refused: rows are only appended, and their order in the table is that of log time.
CREATE INDEX refused_requests_by_time ON refused_requests USING brin (decided_at) WITH (pages_per_range = 16);
