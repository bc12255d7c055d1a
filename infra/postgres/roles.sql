-- A role per service, which owns nothing; what each may do is granted by `holdfast migrate`. The passwords are no secrets on a
-- machine to play on; make your own where it matters (docs/SECURITY.md).
DO $roles$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['ingress', 'reserver', 'persister', 'expirer', 'checkout', 'fulfiller', 'console'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_' || service);
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L',
            'holdfast_' || service, 'holdfast_' || service);
    END LOOP;
END
$roles$;
