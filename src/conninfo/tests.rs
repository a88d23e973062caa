use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::auth::Method;
use super::keyword::{KEYWORDS, Treatment};
use super::target::{Roots, Target, TlsMode};
use super::*;

fn around(environment: &[(&str, &str)], home: Option<&Path>) -> Surroundings {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Surroundings {
        environment: environment
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        home: home.map(Path::to_path_buf),
        user: Some("me".into()),
        sockets: "/run/postgresql".into(),
        ..Surroundings::default()
    }
}

fn resolved(text: &str, environment: &[(&str, &str)]) -> Result<Target, ConninfoError> {
    Conninfo::new(parse(text.as_bytes())?, around(environment, None)).resolve()
}

fn refused(text: &str) -> String {
    resolved(text, &[]).unwrap_err().to_string()
}

#[test]
fn each_keyword_stands_once_and_its_default_is_taken() {
    for (n, keyword) in KEYWORDS.iter().enumerate() {
        assert!(KEYWORDS[..n].iter().all(|other| other.name != keyword.name));
    }
    let target = resolved("", &[]).unwrap();
    assert_eq!(target.tls.mode, TlsMode::Prefer);
    assert_eq!(
        (target.user.as_str(), target.database.as_str()),
        ("me", "me")
    );
    assert_eq!(target.endpoints[0].path(), "/run/postgresql/.s.PGSQL.5432");
}

#[test]
fn what_makes_libpq_stricter_is_refused_by_name_however_it_is_given() {
    for keyword in KEYWORDS {
        let Treatment::Refused(_, harmless) = keyword.treatment else {
            continue;
        };
        let text = format!("{}=something", keyword.name);
        assert!(refused(&text).contains(keyword.name), "{text}");
        if !keyword.variable.is_empty() {
            let error = resolved("", &[(keyword.variable, "something")]).unwrap_err();
            assert!(error.to_string().contains(keyword.name));
        }
        for value in harmless.split_terminator(' ') {
            resolved(&format!("{}={value}", keyword.name), &[]).unwrap();
        }
    }
    assert!(refused("sslkeepout=1").contains("sslkeepout"));
    assert!(refused("gssencmode=require").contains("gssencmode"));
}

#[test]
fn a_keyword_of_a_newer_libpq_is_refused_by_name() {
    let mut surroundings = around(&[("PGSAFER", "1")], None);
    surroundings.newer = vec![("safer".into(), "PGSAFER".into())];
    let error = Conninfo::new(Given::default(), surroundings).resolve();
    assert!(error.unwrap_err().to_string().contains("safer"));
}

#[test]
fn a_value_that_no_keyword_has_is_refused() {
    for text in [
        "sslmode=sometimes",
        "sslmode=''",
        "channel_binding=maybe",
        "sslcertmode=sometimes",
        "sslnegotiation=direct",
        "target_session_attrs=fast",
        "load_balance_hosts=yes",
        "require_auth=magic",
        "require_auth=md5,md5",
        "require_auth=md5,!password",
        "ssl_min_protocol_version=SSLv3",
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "connect_timeout=1.5",
        "port=0",
        "port=65536",
        "port=1,2 host=a",
        "host=a,b hostaddr=1.1.1.1",
        "sslrootcert=system sslmode=require",
    ] {
        refused(text);
    }
}

#[test]
fn the_system_s_roots_come_with_verify_full() {
    let target = resolved("sslrootcert=system", &[("SSL_CERT_FILE", "/x")]).unwrap();
    assert_eq!(target.tls.mode, TlsMode::VerifyFull);
    assert_eq!(target.tls.roots, Roots::System(Some("/x".into()), None));
    assert!(resolved("sslrootcert=system", &[("PGSSLMODE", "prefer")]).is_err());
}

#[test]
fn methods_are_listed_or_left_out() {
    let allowed = |text: &str| {
        let target = resolved(&format!("require_auth={text}"), &[]).unwrap();
        let methods = [Method::Password, Method::Md5, Method::Scram, Method::None];
        methods.map(|method| target.auth.allows(method))
    };
    assert_eq!(allowed("''"), [true; 4]);
    assert_eq!(allowed("scram-sha-256"), [false, false, true, false]);
    assert_eq!(allowed("md5,none"), [false, true, false, true]);
    assert_eq!(allowed("!password,!none"), [false, true, true, false]);
}

#[test]
fn given_before_service_before_environment() {
    let home = tempfile();
    let service = "[other]\nuser=no\n[mine]\n# a comment\nhost=h\nport=7\ndbname=d\n";
    fs::write(home.join(".pg_service.conf"), service).unwrap();
    let variables = [("PGHOST", "e"), ("PGUSER", "u"), ("PGPORT", "9")];
    let given = parse(b"service=mine port=8").unwrap();
    let target = Conninfo::new(given, around(&variables, Some(&home))).resolve();
    let target = target.unwrap();
    let place = &target.endpoints[0];
    assert_eq!((place.host.as_str(), place.port), ("h", 8));
    assert_eq!((target.user.as_str(), target.database.as_str()), ("u", "d"));
    let given = parse(b"service=absent").unwrap();
    let error = Conninfo::new(given, around(&[], Some(&home))).resolve();
    assert!(error.unwrap_err().to_string().contains("service"));
    fs::remove_dir_all(home).unwrap();
}

fn tempfile() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("conninfo-{}-{number}", std::process::id()));
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn a_password_file_is_read_as_libpq_reads_it() {
    let home = tempfile();
    let path = home.join(".pgpass");
    let lines = [
        b"# a comment\nother:*:*:*:no\nh:5432:d:x:no\n".as_slice(),
        b"h:5432:d\\:1:u:s3cr\\:t\\\\x:rest\r\n",
        b"latin:*:*:*:caf\xe9\n",
        "separator:*:*:*:a\u{2028}b\n".as_bytes(),
        b"localhost:*:*:*:local\n*:*:*:*:any",
    ]
    .concat();
    fs::write(&path, lines).unwrap();
    let found = |text: &str| {
        let text = format!("{text} user=u dbname=d:1");
        let given = parse(text.as_bytes()).unwrap();
        let target = Conninfo::new(given, around(&[], Some(&home))).resolve();
        let password = target.unwrap().endpoints[0].password.clone();
        password.map(|password| password.bytes().to_vec())
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(found("host=h"), None); // others may read it: left alone
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(found("host=h").unwrap(), b"s3cr:t\\x");
    assert_eq!(found("host=latin").unwrap(), b"caf\xe9");
    assert_eq!(found("host=separator").unwrap(), "a\u{2028}b".as_bytes());
    assert_eq!(found("").unwrap(), b"local");
    assert_eq!(found("host=i").unwrap(), b"any");
    assert_eq!(found("host=i password=own").unwrap(), b"own");
    // Read anew each time.
    let given = parse(b"host=i user=u").unwrap();
    let conninfo = Conninfo::new(given, around(&[], Some(&home)));
    fs::write(&path, "*:*:*:*:other").unwrap();
    let target = conninfo.resolve().unwrap();
    assert_eq!(
        target.endpoints[0].password.as_ref().unwrap().bytes(),
        b"other"
    );
    fs::remove_dir_all(home).unwrap();
}

#[test]
fn a_url_is_read_as_libpq_and_sqlalchemy_write_it() {
    let places = |text: &str| {
        let target = resolved(text, &[]).unwrap();
        let places = target.endpoints.iter();
        places
            .map(target::Endpoint::shown)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(places("postgresql://a,b:2/d"), "a:5432 b:2");
    assert_eq!(places("postgres://[::1]:3,[::2]/d"), "::1:3 ::2:5432");
    assert_eq!(
        places("postgresql+psycopg://u@/d?host=a:1&host=b:2"),
        "a:1 b:2"
    );
    assert_eq!(
        places("postgresql://%2Fvar%2Frun:4/d"),
        "/var/run/.s.PGSQL.4"
    );
    assert_eq!(
        places("postgresql://h/d?hostaddr=1.2.3.4"),
        "h:5432 (1.2.3.4)"
    );
    let target = resolved(
        "postgresql://u%40x:p%3A%2F@h/d%20b?plugin=x&connect_timeout=3",
        &[],
    );
    let target = target.unwrap();
    assert_eq!(
        (target.user.as_str(), target.database.as_str()),
        ("u@x", "d b")
    );
    assert_eq!(
        target.endpoints[0].password.as_ref().unwrap().bytes(),
        b"p:/"
    );
    let target = resolved("postgresql://u:1234?application_name=x@h/d", &[]).unwrap();
    let [endpoint] = target.endpoints.as_slice() else {
        unreachable!("one host")
    };
    assert_eq!(endpoint.shown(), "h:5432");
    assert_eq!(
        endpoint.password.as_ref().unwrap().bytes(),
        b"1234?application_name=x"
    );
}

#[test]
fn pairs_may_be_quoted_and_hold_what_looks_like_a_url() {
    let target = resolved(
        r"host=h user='it\'s me' dbname = 'a b' password=a://b\ c",
        &[],
    );
    let target = target.unwrap();
    assert_eq!(
        (target.user.as_str(), target.database.as_str()),
        ("it's me", "a b")
    );
    assert_eq!(
        target.endpoints[0].password.as_ref().unwrap().bytes(),
        b"a://b c"
    );
}

#[test]
fn no_message_holds_a_piece_of_a_password() {
    for text in [
        "postgresql://u:s3@cret@h/d",
        "postgresql://u:s3/cret@h/d",
        "postgresql://u:s3%cret@h/d",
        "postgresql://s3:cret/d",
        "postgresql://h:s3cret",
        "host=h password=s3 cret=x",
        "host=h password='s3cret",
        "host=h password=x port=s3cret",
        "host=h password s3cret",
        "mysql://u:s3cret@h/d",
        "password=x sslmode=s3cret!",
        "connect_timeout=s3cret",
    ] {
        let said = refused(text);
        assert!(
            !said.contains("s3") && !said.contains("cret"),
            "{text}: {said}"
        );
    }
    let target = resolved("host=cret@h password=x", &[]).unwrap();
    let shown = format!("{} {target:?}", target.endpoints[0].shown());
    assert!(!target.endpoints[0].shown().contains("cret"), "{shown}");
}

#[test]
fn any_text_is_read_or_refused() {
    use proptest::prelude::*;
    proptest!(|(text in "(postgres(ql)?://)?[a-z=' %@:/?&,\\[\\]\\\\\u{80}-\u{2030}]{0,60}")| {
        let _either = resolved(&text, &[]);
    });
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..60))| {
        let _either = parse(&bytes);
    });
}
