-- The console: in which form a dead letter was sent, and what the last checks found.
--
-- dead_letters_sent is written by the console; check_results by the console (verify) and by `holdfast torture`.

CREATE TABLE dead_letters_sent (
    letter  bigint PRIMARY KEY, -- Its offset in the dead-letter topic.
    copy    text NOT NULL, -- The corrected copy that was sent; empty: the letter as it was buried.
    actor   text COLLATE "C" NOT NULL,
    sent_at bigint NOT NULL
);
COMMENT ON TABLE dead_letters_sent IS 'One form per letter: two, corrected into two lanes, would count twice';

CREATE TABLE check_results (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind   text COLLATE "C" NOT NULL CHECK (kind IN ('verify', 'torture')),
    at     bigint NOT NULL,
    actor  text COLLATE "C" NOT NULL, -- Who asked.
    agrees boolean NOT NULL,
    report jsonb NOT NULL
);
COMMENT ON TABLE check_results IS 'What verify and torture found, newest last';
CREATE INDEX check_results_by_kind ON check_results (kind, id);
