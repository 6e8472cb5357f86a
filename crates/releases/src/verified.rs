//! A release whose every byte has been compared by who holds the lock.

use std::{marker::PhantomData, ops::Deref};

use crate::{
    ReleaseId, Result,
    store::{Locked, Release},
    tree,
};

/// A release whose every byte is as it was installed. It is so for as long as the lock is held, for nobody else changes the
/// store: so what is chosen for being whole is not read once more to be started.
#[derive(Debug)]
pub struct Verified<'a> {
    release: Release,
    locked: PhantomData<&'a Locked<'a>>,
}

impl<'a> Verified<'a> {
    /// Compares every digest of a release.
    ///
    /// # Errors
    /// [`Error::NotInstalled`](crate::Error::NotInstalled), or [`Error::Damaged`](crate::Error::Damaged) with the first file
    /// that differs.
    pub fn of(locked: &'a Locked, id: &ReleaseId) -> Result<Self> {
        let release = locked.release(id)?;
        tree::verify(&release.folder, &release.manifest)?;
        Ok(Self { release, locked: PhantomData })
    }
}

impl Deref for Verified<'_> {
    type Target = Release;

    fn deref(&self) -> &Release {
        &self.release
    }
}
