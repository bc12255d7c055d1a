//! Kafka behind a login, and over TLS: a broker of the test's own, as `infra/` has it otherwise.
//!
//! TLS and SCRAM are librdkafka's with OpenSSL: `cargo test -p plumbing --features kafka-tls --test it kafka_logins`.

#[cfg(feature = "kafka-tls")]
use std::path::PathBuf;
use std::process::Command;

use plumbing::config::{Brokers, Mechanism, Secret, Security};
use plumbing::kafka::{KafkaError, admin, consumer};
use plumbing::task;

use crate::engines::{Engine, Folder, eventually, free_port, run, start};

/// Kafka's jars, where the engines are processes of this machine. Those in containers have none to start another with.
fn kafka_jars() -> Option<String> {
    let dist = std::env::var("HOLDFAST_DIST").unwrap_or_else(|_| "../.holdfast/dist".into());
    let mut found = std::fs::read_dir(dist)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let home = found.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("kafka-"))
    })?;
    Some(format!("{}/*", home.display()))
}

/// A broker that wants a login; `s3cret` is that of `service`.
struct Kafka {
    port: u16,
    _folder: Folder,
    _process: Engine,
}

impl Kafka {
    /// None where there is no Kafka to start. `settings`: how the listener proves itself, and knows who may come in.
    fn start(folder: Folder, security: Security, mechanism: Mechanism, settings: &str) -> Option<Self> {
        let Some(jars) = kafka_jars() else {
            eprintln!("no Kafka of this machine's own to start: not tried");
            return None;
        };
        let [port, inner, controller] = [(); 3].map(|()| free_port());
        let settings = folder.write(
            "server.properties",
            &format!(
                "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
                 listeners=OUTER://127.0.0.1:{port},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=OUTER://127.0.0.1:{port},INNER://127.0.0.1:{inner}\n\
                 listener.security.protocol.map=OUTER:{},INNER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 controller.listener.names=CONTROLLER\ninter.broker.listener.name=INNER\n\
                 listener.name.outer.sasl.enabled.mechanisms={}\n{settings}\n\
                 offsets.topic.replication.factor=1\nlog.dirs={}\n",
                security.name(),
                mechanism.name(),
                folder.file("data")
            ),
        );
        let java = |class: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "java", "-Xmx256m", "-XX:+UseSerialGC"]);
            command.args(["-XX:TieredStopAtLevel=1", "-cp", &jars, class]);
            command.current_dir(folder.file(""));
            command
        };
        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "--cluster-id=aG9sZGZhc3QtbG9jYWwtMQ", "--config", &settings]);
        if mechanism != Mechanism::Plain {
            let name = mechanism.name();
            format.args(["--add-scram", &format!("{name}=[name=service,password=s3cret]")]);
        }
        run(&mut format);
        let process = start(java("kafka.Kafka").arg(&settings));
        Some(Self {
            port,
            _folder: folder,
            _process: process,
        })
    }

    fn brokers(&self) -> Brokers {
        Brokers::from(format!("127.0.0.1:{}", self.port))
    }
}

fn known_as(user: &str, password: &str, brokers: Brokers) -> Brokers {
    Brokers {
        user: Some(user.to_owned()),
        password: Some(password.parse::<Secret>().unwrap()),
        ..brokers
    }
}

/// How many partitions the topic `t` has, as somebody sees it.
async fn count(brokers: Brokers) -> Result<Option<usize>, KafkaError> {
    let asking = task::thread("ask", move || {
        consumer::partition_count(&consumer::reader(&brokers, "test", "test")?, "t")
    });
    asking.await.expect("it does not panic")
}

/// Whoever is known makes a topic and sees it; strangers do not, and no error tells their password.
async fn lets_in_only(known: Brokers, strangers: impl IntoIterator<Item = Brokers>) {
    eventually("Kafka starts", async || count(known.clone()).await.is_ok()).await;
    let topic = admin::TopicSpec {
        name: "t".into(),
        partitions: 3,
        settings: Vec::new(),
    };
    admin::ensure_topic(&known, &topic, 1).await.expect("the topic is made");
    eventually("the topic is known", async || count(known.clone()).await == Ok(Some(3))).await;
    for stranger in strangers {
        let error = count(stranger).await.expect_err("a stranger");
        assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_behind_a_login() {
    let settings = "listener.name.outer.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                    user_service=\"s3cret\";";
    let Some(kafka) = Kafka::start(Folder::new(), Security::SaslPlaintext, Mechanism::Plain, settings) else {
        return;
    };
    let place = || Brokers {
        security: Security::SaslPlaintext,
        mechanism: Mechanism::Plain,
        ..kafka.brokers()
    };
    let strangers = [
        known_as("service", "wr0ng", place()),
        known_as("nobody", "s3cret", place()),
        kafka.brokers(),
    ];
    lets_in_only(known_as("service", "s3cret", place()), strangers).await;
}

#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread")]
async fn kafka_over_tls_behind_a_login() {
    let folder = Folder::new();
    crate::engines::certificates(&folder);
    let parts = ["key.pem", "cert.pem", "ca.pem"].map(|name| std::fs::read_to_string(folder.file(name)).unwrap());
    let settings = format!(
        "listener.name.outer.ssl.keystore.type=PEM\nlistener.name.outer.ssl.keystore.location={}\n\
         listener.name.outer.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
        folder.write("server.pem", &parts.concat())
    );
    let [ca, other] = ["ca.pem", "other.pem"].map(|authority| PathBuf::from(folder.file(authority)));
    let Some(kafka) = Kafka::start(folder, Security::SaslSsl, Mechanism::ScramSha256, &settings) else {
        return;
    };
    let trusting = |authority: Option<&PathBuf>| Brokers {
        security: Security::SaslSsl,
        mechanism: Mechanism::ScramSha256,
        ca: authority.cloned(),
        ..kafka.brokers()
    };
    let without_tls = Brokers {
        security: Security::SaslPlaintext,
        ..trusting(Some(&ca))
    };
    let strangers = [
        known_as("service", "wr0ng", trusting(Some(&ca))),
        known_as("nobody", "s3cret", trusting(Some(&ca))),
        known_as("service", "s3cret", trusting(Some(&other))),
        known_as("service", "s3cret", trusting(None)),
        known_as("service", "s3cret", without_tls),
    ];
    lets_in_only(known_as("service", "s3cret", trusting(Some(&ca))), strangers).await;
}
