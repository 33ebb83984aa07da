//! What containerd says on standard error: logrus lines (`time="…" level=… msg="…" key="…"`), and the last word of a program that
//! does not start (`containerd: …`).

/// Lines about the surroundings of a shadow, not about its configuration: it has no network to configure.
const SURROUNDINGS: [&str; 1] = ["failed to load cni during init"];

/// Whether the daemon says that it is up (all plugins have been tried by then; seen on 1.6.20, 1.7.24, 2.1.9).
#[must_use]
pub fn is_up(line: &str) -> bool {
    line.contains("containerd successfully booted")
}

/// Whether the line says that the CRI plugin, or what it needs, was not loaded: a warning, after which the daemon goes on.
#[must_use]
pub fn is_cri_missing(line: &str) -> bool {
    line.contains("failed to load plugin") && (line.contains("io.containerd.grpc.v1.cri") || line.contains("io.containerd.cri.v1."))
}

/// What went wrong, in the daemon's own words, each once and the cause before what it led to.
#[must_use]
pub fn words(log: &str) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for line in log.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields = fields(line);
        let of = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let words = match of("level") {
            None => line.to_owned(),
            Some("error" | "fatal" | "panic") if !SURROUNDINGS.iter().any(|one| line.contains(one)) => {
                [of("msg"), of("error")].into_iter().flatten().collect::<Vec<_>>().join(": ")
            }
            Some(_) if is_cri_missing(line) => {
                let about = of("id").map(|id| format!(" {id}")).unwrap_or_default();
                format!("{}{about}: {}", of("msg").unwrap_or_default(), of("error").unwrap_or_default())
            }
            Some(_) => continue,
        };
        // what one plugin says is repeated by all that need it
        let cause = |known: &String| known.rsplit_once(": ").is_some_and(|(_, last)| words.ends_with(last));
        if !said.iter().any(cause) {
            said.push(words);
        }
    }
    said
}

/// `key=value` and `key="value"`, Go's escapes undone.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = line;
    while let Some((key, value)) = rest.split_once('=') {
        let key = key.trim().to_owned();
        if let Some(quoted) = value.strip_prefix('"') {
            let mut text = String::new();
            let mut letters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => match letters.next() {
                        Some((_, 'n' | 't' | 'r')) => text.push(' '),
                        Some((_, other)) => text.push(other),
                        None => {}
                    },
                    letter => text.push(letter),
                }
            }
            fields.push((key, text));
            rest = &quoted[end..];
        } else {
            let (value, behind) = value.split_once(' ').unwrap_or((value, ""));
            fields.push((key, value.to_owned()));
            rest = behind;
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_once() {
        let old = r#"time="2026-11-21T00:34:54Z" level=warning msg="failed to load plugin io.containerd.snapshotter.v1.devmapper" error="devmapper not configured"
time="2026-11-21T00:34:54Z" level=warning msg="failed to load plugin io.containerd.grpc.v1.cri" error="invalid plugin config: `mirrors` cannot be set when `config_path` is provided"
time="2026-11-21T00:34:54Z" level=info msg="containerd successfully booted in 0.025440s""#;
        let cause = "`mirrors` cannot be set when `config_path` is provided";
        assert_eq!(words(old), [format!("failed to load plugin io.containerd.grpc.v1.cri: invalid plugin config: {cause}")]);
        assert!(old.lines().any(is_up) && old.lines().filter(|line| is_cri_missing(line)).count() == 1);
        let new = r#"time="…" level=warning msg="failed to load plugin" error="invalid cri image config: `mirrors` cannot be set when `config_path` is provided" id=io.containerd.cri.v1.images type=io.containerd.cri.v1
time="…" level=error msg="failed to load cni during init, please check" error="cni config load failed"
time="…" level=warning msg="failed to load plugin" error="unable to load CRI image service plugin dependency: invalid cri image config: `mirrors` cannot be set when `config_path` is provided" id=io.containerd.grpc.v1.cri type=io.containerd.grpc.v1"#;
        assert_eq!(words(new), [format!("failed to load plugin io.containerd.cri.v1.images: invalid cri image config: {cause}")]);
    }

    #[test]
    fn a_program_that_does_not_start() {
        let log = "time=\"2026-11-21T00:35:15Z\" level=error msg=\"Failure unmarshaling TOML\" column=6 error=\"toml: array is \\\"incomplete\\\"\" row=1\n\
                   containerd: failed to unmarshal TOML at row 1 column 6: toml: array is incomplete\n";
        assert_eq!(
            words(log),
            [
                "Failure unmarshaling TOML: toml: array is \"incomplete\"",
                "containerd: failed to unmarshal TOML at row 1 column 6: toml: array is incomplete"
            ]
        );
    }
}
