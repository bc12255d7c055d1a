# shellcheck shell=bash
# Stripe's stand-in: localstripe from PyPI in a virtual environment of its own, on loopback (local.py). Books in memory, gone
# with the process.

STRIPE_HOME=$DIST/localstripe-1.15.10

# Pip writes a package's commands last, after all that it needs.
stripe_is_installed() { [[ -x $STRIPE_HOME/bin/localstripe ]]; }

stripe_endpoint() { echo "http://127.0.0.1:$STRIPE_PORT"; }

stripe_ready() { curl -fsS -m 5 -o /dev/null -u sk_test_holdfast: "http://127.0.0.1:$STRIPE_PORT/v1/payment_intents"; }

stripe_start() {
    stripe_is_installed || fetch_stripe
    need_free "$STRIPE_PORT" HOLDFAST_STRIPE_PORT stripe
    mkdir -p -- "$STATE/stripe"
    daemon stripe env -C "$STATE/stripe" "$STRIPE_HOME/bin/python" "$INFRA/stripe/local.py" "$STRIPE_PORT"
}

# Made where it stays: a virtual environment does not survive being moved into place.
fetch_stripe() {
    rm -rf -- "$STRIPE_HOME"
    python3 -m venv "$STRIPE_HOME" &&
        ticking "Stripe's stand-in from PyPI" "$LOGS/stripe-install.log" \
            "$STRIPE_HOME/bin/pip" install --disable-pip-version-check localstripe==1.15.10 ||
        die "localstripe could not be installed" "is PyPI reachable? the whole log: $LOGS/stripe-install.log"
}

stripe_stop() { end stripe TERM 10; }
