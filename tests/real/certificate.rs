//! Certificates made on the spot.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
    der: (CertificateDer<'static>, Vec<u8>),
}

impl Pair {
    fn new(certificate: &Certificate, key: &KeyPair) -> Pair {
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), der: (certificate.der().clone(), key.serialize_der()) }
    }

    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        fs::write(certificate, &self.certificate).with_context(|| certificate.display().to_string())?;
        fs::write(key, &self.key).with_context(|| key.display().to_string())
    }

    /// For a server of our own.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>> {
        let key = PrivateKeyDer::try_from(self.der.1.clone()).ok().context("the key that was just made")?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        Ok(Arc::new(CertifiedKey::new(vec![self.der.0.clone()], key)))
    }
}

/// A server's certificate that is its own CA.
pub fn itself(names: Vec<String>, flag: bool) -> Result<Pair> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "on its own");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if flag {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate()?;
    Ok(Pair::new(&params.self_signed(&key)?, &key))
}

/// A CA and the certificates that it signs.
pub struct Authority {
    /// Its own certificate and key.
    pub pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pair = Pair::new(&params.self_signed(&key)?, &key);
        Ok(Authority { pair, issuer: Issuer::new(params, key) })
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, &self.pair.certificate).with_context(|| file.display().to_string())
    }

    /// A server's certificate of long ago.
    pub fn expired(&self, names: Vec<String>) -> Result<Pair> {
        let mut params = CertificateParams::new(names)?;
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        let key = KeyPair::generate()?;
        Ok(Pair::new(&params.signed_by(&key, &self.issuer)?, &key))
    }

    /// A server's certificate without alternative names.
    pub fn common_name(&self, name: String) -> Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok(Pair::new(&params.signed_by(&key, &self.issuer)?, &key))
    }

    /// A certificate and its key, for a server with these names or, without names, for a client.
    pub fn sign(&self, names: Vec<String>) -> Result<Pair> {
        let usage = if names.is_empty() { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth };
        let subject = names.first().cloned().unwrap_or_else(|| "node".to_owned());
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, subject);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        Ok(Pair::new(&params.signed_by(&key, &self.issuer)?, &key))
    }
}
