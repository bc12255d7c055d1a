//! Redis, Postgres and HTTP over TLS: real engines of the test's own, with certificates that it makes.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plumbing::config::{Login, SecretUrl};
use plumbing::{postgres, tls};

/// Ends with its test.
pub struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A folder that goes with its test. Under /var/tmp, because Postgres' user must reach it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = PathBuf::from(format!("/var/tmp/holdfast-test-{}", plumbing::id::random().simple()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("a file");
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

#[track_caller]
pub fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("it is installed (./test does it)");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn start(command: &mut Command) -> Engine {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Engine(quiet.spawn().expect("it is installed (./test does it)"))
}

pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `ca.pem`, and `cert.pem` with `key.pem` for this machine, vouched for by it; `other.pem` vouches for nobody.
pub fn certificates(folder: &Folder) {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
    ];
    for authority in ["ca", "other"] {
        run(Command::new("openssl")
            .args(["req", "-x509", "-days", "2", "-subj", &format!("/CN={authority}")])
            .args(key)
            .args([
                folder.file(&format!("{authority}.key")),
                "-out".into(),
                folder.file(&format!("{authority}.pem")),
            ]));
    }
    run(Command::new("openssl")
        .args(["req", "-subj", "/CN=localhost"])
        .args(key)
        .args([folder.file("key.pem"), "-out".into(), folder.file("csr.pem")]));
    let names = folder.write(
        "names",
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    );
    run(Command::new("openssl")
        .args([
            "x509",
            "-req",
            "-days",
            "2",
            "-CAcreateserial",
            "-in",
            &folder.file("csr.pem"),
        ])
        .args(["-CA", &folder.file("ca.pem"), "-CAkey", &folder.file("ca.key")])
        .args(["-extfile", &names, "-out", &folder.file("cert.pem")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_with_a_user() {
    let folder = Folder::new();
    certificates(&folder);
    let port = free_port();
    let settings = folder.write(
        "redis.conf",
        "save \"\"\nuser default off\nuser service on >s3c/ret ~* &* +@all\n",
    );
    let _redis = start(
        Command::new("redis-server")
            .args([
                &settings,
                "--bind",
                "127.0.0.1",
                "--port",
                "0",
                "--dir",
                &folder.file(""),
            ])
            .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
            .args([
                "--tls-cert-file",
                &folder.file("cert.pem"),
                "--tls-key-file",
                &folder.file("key.pem"),
            ])
            .args(["--tls-ca-cert-file", &folder.file("ca.pem")]),
    );
    let ask = |url: SecretUrl| {
        let who = plumbing::redis::client(url.expose())?.get_connection_with_timeout(Duration::from_secs(5));
        redis::cmd("ACL").arg("WHOAMI").query::<String>(&mut who?)
    };
    let place = |scheme: &str, roots: &str| SecretUrl::from(format!("{scheme}://127.0.0.1:{port}/0{roots}"));
    let trusting = place("rediss", &format!("?sslrootcert={}", folder.file("ca.pem")));
    let login: Login = "service:s3c/ret".parse().unwrap();
    eventually("Redis starts", async || ask(trusting.with_login(&login)).is_ok()).await;
    assert_eq!(ask(trusting.with_login(&login)).unwrap(), "service");

    let wrong: Login = "service:s3c".parse().unwrap();
    let error = ask(trusting.with_login(&wrong)).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3c"), "{error:?}");
    assert!(ask(trusting).is_err(), "nobody without a name");
    let other = place("rediss", &format!("?sslrootcert={}", folder.file("other.pem")));
    assert!(
        ask(other.with_login(&login)).is_err(),
        "an authority that did not vouch"
    );
    assert!(
        ask(place("rediss", "").with_login(&login)).is_err(),
        "the system's did not either"
    );
    assert!(ask(place("redis", "").with_login(&login)).is_err(), "without TLS");
}

/// Postgres' binaries, and what runs them: it refuses root.
fn postgres_command(program: &str) -> Command {
    let found = std::fs::read_dir("/usr/lib/postgresql").expect("Postgres is installed (./test does it)");
    let newest = found
        .map(|version| version.expect("a folder").path())
        .max()
        .expect("a version");
    let program = newest.join("bin").join(program);
    if Path::new("/proc/self").exists() && is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--pdeathsig",
            "KILL",
        ]);
        command.arg(program).current_dir("/");
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("coreutils");
    output.stdout.trim_ascii() == b"0"
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_over_tls() {
    let folder = Folder::new();
    certificates(&folder);
    let secret = folder.write("secret", "s3cret");
    if is_root() {
        run(Command::new("chown").args(["-R", "postgres", &folder.file("")]));
    }
    let cluster = folder.file("cluster");
    run(postgres_command("initdb")
        .args(["-D", &cluster, "-U", "service", "--no-sync", "--auth=scram-sha-256"])
        .arg(format!("--pwfile={secret}")));
    folder.write("cluster/pg_hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\n");
    run(Command::new("chmod").args(["600", &folder.file("key.pem")]));
    let port = free_port();
    let _postgres = start(
        postgres_command("postgres")
            .args([
                "-D",
                &cluster,
                "-c",
                &format!("port={port}"),
                "-c",
                "listen_addresses=127.0.0.1",
            ])
            .args(["-c", "unix_socket_directories=", "-c", "ssl=on"])
            .args(["-c", &format!("ssl_cert_file={}", folder.file("cert.pem"))])
            .args(["-c", &format!("ssl_key_file={}", folder.file("key.pem"))]),
    );
    let ask = async |login: &str, options: String| {
        let url = format!("postgres://{login}@127.0.0.1:{port}/postgres?{options}").into();
        let pool = postgres::connect_lazy(&url, "test", 1)?;
        let is_secure = sqlx::query_scalar::<_, bool>("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        is_secure.fetch_one(&pool).await
    };
    let verified = |roots: &str| format!("sslmode=verify-full&sslrootcert={}", folder.file(roots));
    eventually("Postgres starts", async || {
        ask("service:s3cret", verified("ca.pem")).await.is_ok()
    })
    .await;
    assert!(ask("service:s3cret", verified("ca.pem")).await.unwrap());

    assert!(
        ask("service:s3cret", verified("other.pem")).await.is_err(),
        "an authority that did not vouch"
    );
    assert!(
        ask("service:s3cret", "sslmode=verify-full".into()).await.is_err(),
        "the system's did not either"
    );
    assert!(
        ask("service:s3cret", "sslmode=disable".into()).await.is_err(),
        "without TLS"
    );
    let error = ask("service:wr0ng", verified("ca.pem")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_over_tls() {
    let folder = Folder::new();
    certificates(&folder);
    let port = free_port();
    let _server = start(
        Command::new("openssl")
            .args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-cert", &folder.file("cert.pem"), "-key", &folder.file("key.pem")]),
    );
    let get = async |roots: &str| {
        let (client, url) = tls::client_for(&format!("https://localhost:{port}/{roots}")).expect("a legal URL");
        let answer = client.build().expect("a client").get(url).send().await?;
        answer.text().await
    };
    let trusting = format!("?sslrootcert={}", folder.file("ca.pem"));
    eventually("the server starts", async || get(&trusting).await.is_ok()).await;
    assert!(get(&trusting).await.unwrap().contains("s_server"));
    assert!(
        get(&format!("?sslrootcert={}", folder.file("other.pem")))
            .await
            .is_err(),
        "another authority"
    );
    assert!(get("").await.is_err(), "the system's authorities do not know it");
}
