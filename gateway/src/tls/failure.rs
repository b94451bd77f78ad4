//! Translates rustls' open-ended errors into our closed `Failure`, once, at the edge.
//! In: the error that ended a handshake. Out: its reason. rustls' enums are non-exhaustive, so this is the one
//! place where a catch-all arm stands: what is unknown is the peer's broken TLS, `malformed`.

use gateway_core::failure::Failure;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, PeerMisbehaved};

/// Why a handshake with a client failed.
pub(super) fn classify(error: &Error) -> Failure {
    match error {
        Error::NoCertificatesPresented => Failure::NoCertificate,
        Error::InvalidCertificate(error) => classify_certificate(error),
        Error::PeerIncompatible(error) => classify_incompatible(error),
        Error::NoApplicationProtocol => Failure::Alpn,
        Error::AlertReceived(alert) => classify_alert(*alert),
        // The proof of possession fails as a signature of the certificate's key (CertificateVerify) or as a Finished
        // that does not fit (DecryptError is the name rustls gives to a record that cannot be opened).
        Error::PeerMisbehaved(
            PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme
            | PeerMisbehaved::SignedKxWithWrongAlgorithm
            | PeerMisbehaved::IncorrectBinder,
        ) => Failure::BadSignature,
        Error::FailedToGetCurrentTime
        | Error::FailedToGetRandomBytes
        | Error::EncryptError
        | Error::General(_)
        | Error::HandshakeNotComplete
        | Error::InconsistentKeys(_)
        | Error::BadMaxFragmentSize
        | Error::Other(_) => Failure::Internal,
        _ => Failure::Malformed,
    }
}

fn classify_certificate(error: &CertificateError) -> Failure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Failure::NotYetValid
        }
        CertificateError::UnknownIssuer => Failure::UnknownIssuer,
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            Failure::BadSignature
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Failure::WrongKeyUsage
        }
        CertificateError::ApplicationVerificationFailure => Failure::NotAuthorized,
        // webpki's limits on paths and signatures, and name constraints, come as `Other`.
        CertificateError::Other(_) => Failure::UnknownIssuer,
        _ => Failure::Malformed,
    }
}

fn classify_incompatible(error: &PeerIncompatible) -> Failure {
    match error {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => Failure::Version,
        PeerIncompatible::NoCipherSuitesInCommon => Failure::CipherSuite,
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => Failure::Group,
        // The client cannot verify the kind of signature our certificate makes.
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            Failure::ClientRejectedServer
        }
        _ => Failure::Malformed,
    }
}

fn classify_alert(alert: AlertDescription) -> Failure {
    match alert {
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => Failure::Reset,
        _ => Failure::ClientRejectedServer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_reason() {
        let cases = [
            (Error::NoCertificatesPresented, Failure::NoCertificate),
            (
                CertificateError::UnknownIssuer.into(),
                Failure::UnknownIssuer,
            ),
            (CertificateError::Expired.into(), Failure::Expired),
            (CertificateError::NotValidYet.into(), Failure::NotYetValid),
            (CertificateError::BadSignature.into(), Failure::BadSignature),
            (
                CertificateError::InvalidPurpose.into(),
                Failure::WrongKeyUsage,
            ),
            (
                CertificateError::ApplicationVerificationFailure.into(),
                Failure::NotAuthorized,
            ),
            (CertificateError::BadEncoding.into(), Failure::Malformed),
            (
                PeerIncompatible::SupportedVersionsExtensionRequired.into(),
                Failure::Version,
            ),
            (
                PeerIncompatible::NoCipherSuitesInCommon.into(),
                Failure::CipherSuite,
            ),
            (PeerIncompatible::NoKxGroupsInCommon.into(), Failure::Group),
            (Error::NoApplicationProtocol, Failure::Alpn),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                Failure::ClientRejectedServer,
            ),
            (
                Error::AlertReceived(AlertDescription::UserCanceled),
                Failure::Reset,
            ),
            (Error::DecryptError, Failure::Malformed),
            (Error::FailedToGetRandomBytes, Failure::Internal),
        ];
        for (error, failure) in cases {
            assert_eq!(classify(&error), failure, "{error:?}");
        }
    }
}
