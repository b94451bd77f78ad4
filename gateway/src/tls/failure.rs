//! Translates rustls' open-ended errors into our closed `Failure`, once, at the edge.
//! In: the error that ended a handshake. Out: its reason. rustls' enums are non-exhaustive, so this is the one
//! place where a catch-all arm stands: what is unknown is the peer's broken TLS, `malformed`.

use gateway_core::alert::Alert;
use gateway_core::failure::Failure;
use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};

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

/// The alert that the standard wants for `error` where rustls sends another one or none.
pub(super) fn alert_of(error: &Error) -> Option<Alert> {
    match error {
        // RFC 8446 section 5.4: a record without a content type, or an alert without content; section 5.1: between the
        // parts of a handshake message, or before a change of keys. Those without end have no alert of their own.
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MissingData("AlertLevel"),
        )
        | Error::PeerMisbehaved(
            PeerMisbehaved::IllegalTlsInnerPlaintext
            | PeerMisbehaved::IllegalMiddleboxChangeCipherSpec
            | PeerMisbehaved::KeyEpochWithPendingFragment
            | PeerMisbehaved::MessageInterleavedWithHandshakeMessage
            | PeerMisbehaved::TooManyEmptyFragments,
        ) => Some(Alert::UNEXPECTED_MESSAGE),
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => Some(Alert::RECORD_OVERFLOW),
        // Section 9.2.
        Error::PeerIncompatible(
            PeerIncompatible::KeyShareExtensionRequired
            | PeerIncompatible::NamedGroupsExtensionRequired,
        ) => Some(Alert::MISSING_EXTENSION),
        // Section D.2.
        Error::PeerIncompatible(incompatible)
            if classify_incompatible(incompatible) == Failure::Version =>
        {
            Some(Alert::PROTOCOL_VERSION)
        }
        _ => None,
    }
}

/// Why a handshake with a client failed, as an operator reads it. What has no words here says what rustls says.
pub(super) fn describe(error: &Error) -> String {
    let words = match error {
        Error::NoCertificatesPresented => "the client sent no certificate",
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the proof of possession does not verify: the client's key is not the one of its certificate"
        }
        Error::PeerIncompatible(error) => return describe_incompatible(error),
        Error::NoApplicationProtocol => {
            "none of the application protocols that the client offers is in the listener's alpn"
        }
        Error::AlertReceived(alert) => {
            return format!(
                "the client ended the handshake by the alert {}",
                Alert(u8::from(*alert))
            );
        }
        Error::DecryptError => "a record of the client cannot be decrypted",
        Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme) => {
            "the client proved its key by a signature that it was not asked for"
        }
        Error::PeerMisbehaved(PeerMisbehaved::IncorrectBinder) => {
            "the client does not know the secret of its ticket"
        }
        other => return other.to_string(),
    };
    words.to_owned()
}

fn describe_incompatible(error: &PeerIncompatible) -> String {
    let words = match error {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => "the client does not offer TLS 1.3",
        PeerIncompatible::NoCipherSuitesInCommon => {
            "none of the cipher suites that the client offers is in [tls] cipher_suites"
        }
        PeerIncompatible::NoKxGroupsInCommon => {
            "none of the key exchange groups that the client offers is in [tls] groups"
        }
        PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => {
            "the client offers no key exchange group (RFC 8446 section 9.2)"
        }
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "the client accepts none of the signatures that the key of the gateway's certificate makes"
        }
        PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the client has no signature that is in [tls] client_signatures"
        }
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "the client names no signatures that it accepts (RFC 8446 section 4.2.3)"
        }
        // The rest is about TLS 1.2, QUIC, other types of certificates and a server's answers.
        _ => "the client offers a handshake of a kind that the gateway does not make",
    };
    words.to_owned()
}

/// Why a handshake with a backend failed, as an operator reads it. What has no words here says what rustls says.
pub(super) fn describe_server(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!(
            "the server ended the handshake by the alert {}",
            Alert(u8::from(*alert))
        ),
        other => other.to_string(),
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

    #[test]
    fn operators_read_words_and_the_names_of_the_standard() {
        let cases = [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "the client ended the handshake by the alert unknown_ca",
            ),
            (
                Error::AlertReceived(AlertDescription::Unknown(200)),
                "the client ended the handshake by the alert number 200",
            ),
            (
                PeerIncompatible::Tls12NotOfferedOrEnabled.into(),
                "the client does not offer TLS 1.3",
            ),
            (
                PeerIncompatible::NoKxGroupsInCommon.into(),
                "none of the key exchange groups that the client offers is in [tls] groups",
            ),
            (
                PeerIncompatible::UncompressedEcPointsRequired.into(),
                "the client offers a handshake of a kind that the gateway does not make",
            ),
        ];
        for (error, words) in cases {
            assert_eq!(describe(&error), words, "{error:?}");
        }
        let refused = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(
            describe_server(&refused),
            "the server ended the handshake by the alert certificate_required"
        );
    }
}
