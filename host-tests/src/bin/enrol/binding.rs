//! The binding: the key, where the refresh token goes, and what the operator puts where.

use std::io::Write;
use std::path::{Path, PathBuf};

use jagway_core::secret::Secret;

use crate::arguments::Arguments;
use crate::{Result, random};

/// By this a key is known when it turns up where it should not.
const PREFIX: &str = "jgw_";

/// Where the refresh token goes.
pub enum Destination {
    /// Among what is printed.
    Stdout,
    /// Into a file that only this user can read.
    File(PathBuf),
}

impl Destination {
    /// `-`, or a file.
    pub fn named(text: &str) -> Self {
        if text == "-" { Self::Stdout } else { Self::File(PathBuf::from(text)) }
    }

    /// Whether a file is there already.
    pub fn exists(&self) -> bool {
        matches!(self, Self::File(file) if file.exists())
    }

    /// Fails where [`Self::write`] would, as far as that can be told before anybody has logged in.
    pub fn check(&self) -> Result<()> {
        let Self::File(file) = self else { return Ok(()) };
        if file.exists() && !file.is_file() {
            return Err(format!("{}: is no file", file.display()));
        }
        let tried = tempfile::NamedTempFile::new_in(directory(file));
        tried.map(|_| ()).map_err(|error| unwritten(file, &error))
    }

    /// Puts the refresh token into the file, of mode 0600 from the beginning, all at once.
    pub fn write(&self, token: &Secret) -> Result<()> {
        let Self::File(file) = self else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(directory(file))?;
            new.write_all(token.expose().as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(file)?;
            Ok(())
        };
        write().map_err(|error| unwritten(file, &error))
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unwritten(file: &Path, error: &std::io::Error) -> String {
    // Not the error's own text: it names the temporary file.
    format!("{}: cannot be written: {}", file.display(), error.kind())
}

/// What is printed: the one place where the new key appears.
pub fn text(arguments: &Arguments, subject: &str, refresh_token: &Secret) -> String {
    let Arguments { caller, header, issuer, .. } = arguments;
    let key = Secret::new(format!("{PREFIX}{}", random()));
    let key = key.expose();
    let sha256 = host_tests::keys::sha256_hex(key);
    let variable = arguments.variable("REFRESH");
    let value = match &arguments.destination {
        Destination::Stdout => quoted(refresh_token.expose()),
        Destination::File(file) => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            format!("\"$(cat {})\"", quoted(&file.display().to_string()))
        }
    };
    let issuer = issuer.as_str();
    format!(
        "\
# The key of {caller}, to be sent as `{header}`. It is shown this once.
{key}

# For the configuration: an entry of the resource's `upgrade.callers`. Jagway itself needs no more of the key.
callers:
# {caller} is {subject:?} at {issuer}
- api_key: {{ header: {header:?}, sha256: \"{sha256}\" }}
  subject: {{ refresh_token: {{ env: {variable} }} }}

# For Envoy's environment; its bootstrap lists {variable} under `host_env_keys`.
export {variable}={value}
"
    )
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_for_nobody_else_even_if_it_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();

        Destination::File(file.clone()).write(&Secret::new("new")).unwrap();

        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_known_before_the_login() {
        let directory = tempfile::tempdir().unwrap();

        let here = Destination::File(directory.path().to_owned()).check();
        let nowhere = Destination::File(directory.path().join("no/token")).check();

        assert!(here.unwrap_err().ends_with("is no file"));
        assert!(nowhere.unwrap_err().contains("cannot be written"));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_shell_takes_any_token_for_one_word() {
        assert_eq!(quoted("a'b $c"), r"'a'\''b $c'");
    }
}
