//! Where the recording comes from: HTTPS, with a certificate of the run's own.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const MIB: usize = 1024 * 1024;

/// A WAV file, made up as it is read: its first MiB has the header, every further one is the same noise.
#[derive(Clone)]
pub struct Recording {
    first: Bytes,
    further: Bytes,
    mib: u64,
    /// As hex.
    pub sha256: String,
}

impl Recording {
    pub fn new(mib: u64) -> Self {
        let mut noise = 1_u64;
        let further: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise.to_be_bytes()[0]
        })
        .take(MIB)
        .collect();
        let mut first = further.clone();
        first[..12].copy_from_slice(b"RIFF\0\0\0\0WAVE");
        let mut recording = Self { first: first.into(), further: further.into(), mib, sha256: String::new() };
        let mut digest = Sha256::new();
        recording.pieces().for_each(|piece| digest.update(piece));
        recording.sha256 = hex::encode(digest.finalize());
        recording
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.mib * MIB as u64
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> + use<> {
        let (first, further) = (self.first.clone(), self.further.clone());
        (0..self.mib).map(move |index| if index == 0 { first.clone() } else { further.clone() })
    }
}

/// Serves the recording, whatever is asked for, for as long as the process runs; the certificate of the run's own CA, as
/// PEM.
pub async fn serve(recording: Recording, host: &str, address: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut params = CertificateParams::new(Vec::new())?;
    // A certificate by an issuer of its own name would pass for self-signed.
    params.distinguished_name.push(DnType::CommonName, "bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &ca)?;
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(address).await?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, recording) = (acceptor.clone(), recording.clone());
            let answer = service_fn(move |_: Request<Incoming>| {
                let pieces = recording.pieces().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
                let mut response = Response::new(StreamBody::new(stream::iter(pieces)));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("audio/wav"));
                headers.insert(header::CONTENT_LENGTH, recording.length().into());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            tokio::spawn(async move {
                // A reader that goes away is no concern of the source's.
                if let Ok(socket) = acceptor.accept(socket).await {
                    let served =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                    drop(served.await);
                }
            });
        }
    });
    Ok(ca.pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_as_long_as_it_says_and_has_the_digest_that_it_says() {
        let recording = Recording::new(3);
        let bytes: Vec<u8> = recording.pieces().flatten().collect();
        assert_eq!(bytes.len() as u64, recording.length());
        assert!(bytes.starts_with(b"RIFF"));
        assert_eq!(hex::encode(Sha256::digest(&bytes)), recording.sha256);
    }
}
