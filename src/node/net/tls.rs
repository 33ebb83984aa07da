//! The handshake: the server is believed as Go believes it, and a client certificate is shown when Go would show it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme, StreamOwned,
};

use super::dial::{Timed, is_late, reason};
use crate::model::cert::{Link, signing_key};
use crate::model::time::Time;
use crate::verify::believe::{Belief, CLOCK, Checked, NOT_NOW, believe, odd_key};
use crate::verify::probe::{Identity, Trouble, Trusted};

/// A TLS connection.
pub(super) type Tls = StreamOwned<ClientConnection, Timed>;

/// Whom to believe, whom to be.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    /// Name or address, without port and brackets.
    pub name: &'a str,
    pub trust: &'a Trusted,
    pub client: Option<&'a Identity>,
}

/// What the other side asked for, told apart from what it then said of it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    asked: AtomicBool,
    shown: AtomicBool,
    belief: Mutex<Option<Belief>>,
    /// It is not believed for the time alone.
    by_the_clock: AtomicBool,
}

impl Noted {
    /// What was found, in words.
    pub(super) fn words(&self, connection: &ClientConnection) -> String {
        let mut words =
            vec![connection.protocol_version().map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}").replace('_', "."))];
        words.push(match self.belief.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => "certificate not verified".to_owned(),
            Some(_) => "certificate verified".to_owned(),
        });
        if self.asked.load(Ordering::Relaxed) {
            let what =
                if self.shown.load(Ordering::Relaxed) { "client certificate shown" } else { "client certificate asked for, none shown" };
            words.push(what.to_owned());
        }
        words.join(", ")
    }

    /// What an error of the connection means.
    pub(super) fn trouble(&self, error: &std::io::Error) -> Trouble {
        if is_late(error) {
            return Trouble::Silent;
        }
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let belief = self.belief.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (belief, inner) {
            (Some(Belief::No(why)), _) if self.by_the_clock.load(Ordering::Relaxed) => Trouble::NotNow(why),
            (Some(Belief::No(why)), _) => Trouble::Disbelieved(why),
            (Some(Belief::Unknown(why)), _) if why.starts_with(CLOCK) => Trouble::Clock(why),
            (Some(Belief::Unknown(why)), _) => Trouble::Unknown(why),
            (_, Some(Error::InvalidMessage(InvalidMessage::InvalidContentType))) => Trouble::NoTls,
            (_, Some(Error::AlertReceived(AlertDescription::ProtocolVersion))) => {
                Trouble::Disbelieved("remote error: tls: protocol version not supported (TLS 1.2 at least is wanted)".into())
            }
            (_, Some(Error::AlertReceived(alert))) if self.asked.load(Ordering::Relaxed) => self.client(&format!("{alert:?}")),
            // which ciphers and curves a runtime knows depends on its Go
            (_, Some(other)) => Trouble::Unknown(format!("our TLS library ends the handshake: {other}")),
            // the other side hangs up without a word when it wanted a certificate
            (_, None) if self.asked.load(Ordering::Relaxed) => self.client("the connection is closed"),
            (_, None) => Trouble::Unreachable(reason(error)),
        }
    }

    fn client(&self, why: &str) -> Trouble {
        if self.shown.load(Ordering::Relaxed) { Trouble::ClientRefused(why.to_owned()) } else { Trouble::ClientWanted }
    }
}

/// Shakes hands.
pub(super) fn shake(stream: Timed, terms: &Terms<'_>) -> Result<(Tls, Arc<Noted>), Trouble> {
    let unknown = |error: Error| Trouble::Unknown(format!("our TLS library refuses: {error}"));
    let noted = Arc::new(Noted::default());
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        trust: terms.trust.clone(),
        name: terms.name.to_owned(),
        known: provider.signature_verification_algorithms,
        noted: Arc::clone(&noted),
    };
    let identity = match terms.client {
        None => None,
        Some(client) => {
            let key = signing_key(&client.key).ok_or_else(|| Trouble::Unknown("our TLS library does not know the client's key".into()))?;
            let issuers = client.chain.iter().filter_map(|der| Link::from_der(der).ok()).map(|link| link.issuer).collect();
            let chain = client.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            Some((Arc::new(CertifiedKey::new(chain, key)), issuers))
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unknown)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Shower { identity, noted: Arc::clone(&noted) }));
    let name = ServerName::try_from(terms.name.to_owned()).map_err(|_| Trouble::Unknown(format!("{} is no name for TLS", terms.name)))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(unknown)?;
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).map_err(|error| noted.trouble(&error))?;
    }
    Ok((tls, noted))
}

/// Shows the certificate as Go does: only to who names its issuer, or names none (crypto/tls, `SupportsCertificate`).
#[derive(Debug)]
struct Shower {
    identity: Option<(Arc<CertifiedKey>, Vec<Vec<u8>>)>,
    noted: Arc<Noted>,
}

impl ResolvesClientCert for Shower {
    fn resolve(&self, wanted: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.noted.asked.store(true, Ordering::Relaxed);
        let (key, issuers) = self.identity.as_ref()?;
        let fits = wanted.is_empty() || issuers.iter().any(|issuer| wanted.contains(&issuer.as_slice()));
        if !fits || key.key.choose_scheme(schemes).is_none() {
            return None;
        }
        self.noted.shown.store(true, Ordering::Relaxed);
        Some(Arc::clone(key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trusted,
    name: String,
    known: WebPkiSupportedAlgorithms,
    noted: Arc<Noted>,
}

impl Verifier {
    fn signature(&self, message: &[u8], cert: &CertificateDer<'_>, by: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        let unknown = |what: &str| {
            *self.noted.belief.lock().unwrap_or_else(PoisonError::into_inner) = Some(Belief::Unknown(what.to_owned()));
            Error::General(what.to_owned())
        };
        let link = Link::from_der(cert).map_err(|why| unknown(&format!("the server's certificate cannot be read: {why}")))?;
        if let Some(Checked::Unknown(what)) = odd_key(&link) {
            return Err(unknown(&format!("our TLS library does not check {what}")));
        }
        let algorithms = self.known.mapping.iter().find(|(scheme, _)| *scheme == by.scheme).map(|(_, algorithms)| *algorithms);
        let mut fitting =
            algorithms.into_iter().flatten().filter(|known| known.public_key_alg_id().as_ref() == link.key_algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(unknown("our TLS library does not know the algorithm of the server's key"));
        }
        if fitting.any(|known| known.verify_signature(&link.key, message, by.signature()).is_ok()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            let why = "tls: invalid signature by the server certificate".to_owned();
            *self.noted.belief.lock().unwrap_or_else(PoisonError::into_inner) = Some(Belief::No(why.clone()));
            Err(Error::General(why))
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trusted::By(pool) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let shown: Vec<&[u8]> = std::iter::once(end).chain(others).map(AsRef::as_ref).collect();
        let now = Time::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let belief = believe(pool, &shown, &self.name, now);
        // at a time that nothing is known of only the time is in doubt
        let by_the_clock = matches!(&belief, Belief::No(why) if why.contains(NOT_NOW))
            && matches!(believe(pool, &shown, &self.name, Time(0)), Belief::Unknown(why) if why.starts_with(CLOCK));
        self.noted.by_the_clock.store(by_the_clock, Ordering::Relaxed);
        let result = match &belief {
            Belief::Yes => Ok(ServerCertVerified::assertion()),
            Belief::No(why) | Belief::Unknown(why) => Err(Error::General(why.clone())),
        };
        *self.noted.belief.lock().unwrap_or_else(PoisonError::into_inner) = Some(belief);
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, by)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, by)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_schemes()
    }
}
