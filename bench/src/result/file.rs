//! Documents in files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::{LoadResult, SCHEMA};
use crate::failure::Failure;

/// Longest document that is read, in bytes. A second of a run takes some 2 kB, so this is more than a day of them.
const LEN_MAX: u64 = 256 << 20;

/// What can be said of a document of any schema.
#[derive(Deserialize)]
struct AnySchema {
    schema: u32,
}

impl LoadResult {
    /// Reads a document.
    ///
    /// # Errors
    /// If the file cannot be read, or is no document of schema [`SCHEMA`]: a sentence that names path and reason.
    ///
    /// # Blocking
    /// As long as reading the file takes.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LEN_MAX + 1).read_to_end(&mut text));
        read.map_err(|error| failure(path, &format!("cannot be read: {error}")))?;
        if text.len() as u64 > LEN_MAX {
            return Err(failure(path, &format!("is longer than the {LEN_MAX} bytes that a result may have")));
        }
        Self::parse(&text).map_err(|why| failure(path, &why))
    }

    /// Writes the document, over what the file held before.
    ///
    /// # Errors
    /// If the file cannot be written, or the document could not be read again, for a figure that is no number: a
    /// sentence that names path and reason.
    ///
    /// # Blocking
    /// As long as writing the file takes.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = self.to_json().map_err(|why| failure(path, &format!("cannot be written: {why}")))?;
        std::fs::write(path, text).map_err(|error| failure(path, &format!("cannot be written: {error}")))
    }

    /// The document as text that ends with a newline: what [`LoadResult::write`] writes.
    ///
    /// # Errors
    /// A sentence if it could not be read again. JSON has no infinities, and writes `null` for them.
    pub fn to_json(&self) -> Result<String, String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        Self::parse(text.as_bytes()).map_err(|why| format!("the result {why}"))?;
        text.push('\n');
        Ok(text)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let AnySchema { schema } =
            serde_json::from_slice(text).map_err(|error| format!("is no result of a load run: {error}"))?;
        if schema != SCHEMA {
            return Err(format!("has schema {schema}, and this version reads schema {SCHEMA}"));
        }
        serde_json::from_slice(text).map_err(|error| format!("is not as schema {SCHEMA} asks: {error}"))
    }
}

fn failure(path: &Path, why: &str) -> Failure {
    Failure::Other(format!("{} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::result::example;

    fn file(text: &str) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        let (_directory, path) = file(text);
        let why = LoadResult::read(&path).unwrap_err().to_string();
        assert!(why.starts_with(&path.display().to_string()), "{why}");
        why
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let (_directory, path) = file("");
        let result = example::payment_auth();
        result.write(&path).unwrap();
        assert!(LoadResult::read(&path).unwrap() == result);
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let text = example::payment_auth().to_json().unwrap();
        let (_directory, path) = file(&text.replacen('{', "{\"colour\": [1, 2],", 1));
        assert!(LoadResult::read(&path).unwrap() == example::payment_auth());
    }

    #[test]
    fn other_schemas_and_other_files_are_refused_by_a_sentence() {
        let text = example::payment_auth().to_json().unwrap();
        let other = text.replacen("\"schema\": 1", "\"schema\": 2", 1);
        assert!(refused(&other).contains("has schema 2, and this version reads schema 1"));
        assert!(refused("{}").contains("no result of a load run: missing field `schema`"));
        assert!(refused("not JSON").contains("no result of a load run"));
        assert!(refused("{\"schema\": 1}").contains("is not as schema 1 asks: missing field `title`"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let path = Path::new("/nowhere/result.json");
        for why in [LoadResult::read(path).unwrap_err(), example::payment_auth().write(path).unwrap_err()] {
            assert!(why.to_string().starts_with("/nowhere/result.json cannot be "), "{why}");
        }
    }

    #[test]
    fn a_figure_that_is_no_number_is_refused_before_the_file_is_touched() {
        let (_directory, path) = file("kept");
        let mut result = example::payment_auth();
        result.total.ops_per_s = f64::INFINITY;
        assert!(result.write(&path).unwrap_err().to_string().contains("cannot be written"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }
}
