use super::*;

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<(Config, Origins), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dislog.toml");
    std::fs::write(&path, file).unwrap();
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    Config::load(Some(&path), owned(environment), &owned(flags))
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn later_origins_override_earlier_ones() {
    let (config, origins) = load(
        "listen = '0.0.0.0:1'\nretention_bytes = '1GiB'\nrack = 'r'\nname = 'a'",
        &[("DISLOG_LISTEN", "0.0.0.0:2"), ("DISLOG_NAME", "b"), ("HOME", "/root")],
        &[("listen", "[::1]:3"), ("retention_ms", "7d")],
    )
    .unwrap();
    assert_eq!(config.listen, "[::1]:3");
    assert_eq!(origins.of("listen"), &Origin::Flag);
    assert_eq!(config.name, "b");
    assert_eq!(origins.of("name"), &Origin::Environment("DISLOG_NAME".to_owned()));
    assert_eq!(config.retention_bytes, 1 << 30);
    assert!(matches!(origins.of("retention_bytes"), Origin::File(_)));
    assert_eq!(config.retention_ms, 7 * 86_400_000);
    assert_eq!(config.rack, "r");
    assert_eq!(config.bootstrap_expect, 0);
    assert_eq!(origins.of("bootstrap_expect"), &Origin::Default);
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_nearest_known_key() {
    assert_eq!(
        load("data_dri = 'x'", &[], &[]).unwrap_err(),
        "unknown setting \"data_dri\" in file FILE; did you mean \"data_dir\"?"
    );
    assert_eq!(
        load("zookeeper = 1", &[], &[]).unwrap_err(),
        "unknown setting \"zookeeper\" in file FILE; `dislog server --print-config` lists the \
            settings"
    );
    assert_eq!(
        load("", &[("DISLOG_DATADIR", "x")], &[]).unwrap_err(),
        "unknown setting \"datadir\" in environment DISLOG_DATADIR; did you mean \"data_dir\"?"
    );
}

#[test]
fn variables_that_others_use_are_left_alone() {
    // Kubernetes sets these for a service called `dislog`, and our own client reads DISLOG_SERVERS.
    let others = [
        ("DISLOG_PORT", "tcp://10.0.0.1:8400"),
        ("DISLOG_SERVICE_HOST", "10.0.0.1"),
        ("DISLOG_PORT_8400_TCP_ADDR", "10.0.0.1"),
        ("DISLOG_SERVERS", "a:1,b:2"),
        ("DISLOG_CONFIG", "/etc/dislog.toml"),
    ];
    assert_eq!(load("", &others, &[]).unwrap().0, Config::default());
}

#[test]
fn values_that_cannot_be_say_what_can() {
    for (key, value, expected) in [
        ("listen", "nowhere", "host:port"),
        ("listen", ":8400", "host:port"),
        ("retention_bytes", "-1", "give bytes"),
        ("retention_bytes", "99999999999999999999", "give bytes"),
        ("retention_bytes", "99999999999GiB", "give bytes"),
        ("retention_ms", "soon", "give milliseconds"),
        ("auto_create_topics", "yes", "true or false"),
        ("bootstrap_expect", "101", "from 0 to"),
        ("join", "a:1,b", "host:port"),
        ("replace_after_ms", "1", "from 1s to 365d"),
        ("insecure", "yes", "loopback or anywhere"),
        ("data_dir", "", "must not be empty"),
    ] {
        let error = load("", &[], &[(key, value)]).unwrap_err();
        assert!(error.contains(key) && error.contains(expected), "{error}");
    }
    assert!(load("listen = ", &[], &[]).unwrap_err().contains("not valid TOML"));
    assert!(load("[data_dir]\nx = 1", &[], &[]).unwrap_err().contains("one value"));
}

#[test]
fn what_is_printed_can_be_loaded() {
    let (config, origins) = load("retention_ms = '36h'\nname = 'a\"b'", &[], &[]).unwrap();
    let printed = config.print(&origins);
    assert!(
        printed.contains("retention_ms = \"36h\"") && printed.contains("# default"),
        "{printed}"
    );
    assert_eq!(load(&printed, &[], &[]).unwrap().0, config);
}

#[test]
fn the_documentation_has_the_table_of_settings() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let document = std::fs::read_to_string(path).unwrap();
    let table = Config::documentation();
    assert!(document.contains(&table), "replace the table in docs/configuration.md with:\n{table}");
}
