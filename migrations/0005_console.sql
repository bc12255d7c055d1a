-- The console: who may, who is in, and what people did.
--
-- Written by the console only. Times are this machine's, in milliseconds since the Unix epoch.

CREATE TABLE console_users (
    name          text COLLATE "C" PRIMARY KEY,
    role          text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password_hash text NOT NULL, -- argon2id, in PHC form.
    created_at    bigint NOT NULL
);
COMMENT ON TABLE console_users IS 'People who may use the console';

CREATE TABLE console_sessions (
    token_hash bytea PRIMARY KEY, -- SHA-256: who reads the table cannot come in.
    name       text COLLATE "C" NOT NULL REFERENCES console_users ON DELETE CASCADE,
    csrf       text NOT NULL,
    expires_at bigint NOT NULL
);
COMMENT ON TABLE console_sessions IS 'Who is logged in, until when';
CREATE INDEX console_sessions_by_end ON console_sessions (expires_at);

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      bigint NOT NULL,
    actor   text COLLATE "C" NOT NULL,
    action  text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    detail  jsonb NOT NULL,
    outcome text COLLATE "C" -- NULL: it was begun, and nobody knows.
);
COMMENT ON TABLE audit_log IS 'What people did: written before it is done, completed afterwards';
