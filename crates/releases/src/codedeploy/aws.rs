//! The AWS CLI, as the user has it: profile, region and login are its own business.

use std::{
    io::ErrorKind,
    process::{Command, Output},
};

use serde::de::{DeserializeOwned, IgnoredAny};

use super::refusal;
use crate::{Error, Result, interrupt::Interrupt};

/// Asks AWS that, for which nobody needs a right: there is a CLI, and it is logged in.
///
/// # Errors
/// [`Error::Aws`] where it is not.
pub fn who_asks() -> Result<()> {
    Request::new("sts", "get-caller-identity").send::<IgnoredAny>().map(drop)
}

/// What is asked of AWS.
#[derive(Debug)]
pub struct Request {
    service: &'static str,
    operation: &'static str,
    options: Vec<String>,
}

impl Request {
    /// Without options, of version 1 of the CLI or 2.
    pub fn new(service: &'static str, operation: &'static str) -> Self {
        Self { service, operation, options: Vec::new() }
    }

    /// An option with its value, in one word: a value that begins with a dash is none of its own.
    pub fn with(mut self, option: &str, value: impl std::fmt::Display) -> Self {
        self.options.push(format!("--{option}={value}"));
        self
    }

    /// One without a value, or further values of the last one.
    pub fn words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.options.extend(words.into_iter().map(str::to_owned));
        self
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// [`Error::Aws`] where it was refused: one line that says why, and what to do. [`Error::Release`] where there is no answer,
    /// and what was asked may have been done.
    pub fn send<T: DeserializeOwned>(&self) -> Result<T> {
        self.look(&Interrupt::default())
    }

    /// The same of what changes nothing, so that an interrupt may end it.
    ///
    /// # Errors
    /// As [`Self::send`], and [`Error::Release`] where it was ended.
    pub fn look<T: DeserializeOwned>(&self, interrupt: &Interrupt) -> Result<T> {
        let mut command = Command::new("aws");
        command.args([self.service, self.operation]).args(&self.options).args(["--output", "json"]);
        // A question of its own, for a second factor say, goes to the terminal.
        command.env("AWS_PAGER", "").env("AWS_CLI_AUTO_PROMPT", "off");
        match interrupt.output(command) {
            Ok(output) => self.read(&output),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Aws(
                "the AWS CLI is not installed (no `aws` on the PATH): https://aws.amazon.com/cli".to_owned(),
            )),
            Err(error) => Err(Error::Aws(self.told(&error.to_string()))),
        }
    }

    fn read<T: DeserializeOwned>(&self, output: &Output) -> Result<T> {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let told = self.told(&refusal::explain(&said, output.status));
            return Err(if refusal::is_one(&said, output.status) { Error::Aws(told) } else { Error::Release(told) });
        }
        // Some answers are nothing.
        let text = String::from_utf8_lossy(&output.stdout);
        let text = if text.trim().is_empty() { "null" } else { &text };
        serde_json::from_str(text)
            .map_err(|error| Error::Release(self.told(&format!("its answer is not understood: {error}"))))
    }

    fn told(&self, why: &str) -> String {
        format!("aws {} {}: {why}", self.service, self.operation)
    }
}
