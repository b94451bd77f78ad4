//! Finds the servers of a service by its SRV records (RFC 2782), which the system's resolver does not ask for.
//! In: a service's name, /etc/resolv.conf. Out: addresses, each with what its record says. On a `look-up` thread, which may block as
//! long as the name servers let it. Hosts of records are resolved as all other names are.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use gateway_core::limits;
use gateway_core::names::{Resolved, ServiceRecord};
use resolv_conf::Config;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

const RESOLVERS: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// A record, with the host that it names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    record: ServiceRecord,
}

/// A reply that is one.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Targets(Vec<Target>),
    /// It does not fit into a datagram.
    Truncated,
    /// There is no such service, or the name server cannot say.
    Failed(RCODE),
}

/// Asks for the servers of a service.
pub(super) fn look_up(service: &str) -> io::Result<Vec<Resolved>> {
    let config = Config::parse(fs::read(RESOLVERS)?).map_err(io::Error::other)?;
    let timeout = Duration::from_secs(u64::from(config.timeout.max(1)));
    let name_servers = config.get_nameservers_or_local();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..config.attempts.max(1) {
        for name_server in &name_servers {
            let address = SocketAddr::new(IpAddr::from(name_server), DNS_PORT);
            match ask(address, service, timeout) {
                Ok(Reply::Targets(targets)) => return resolve(&targets),
                Ok(Reply::Failed(RCODE::NameError)) => {
                    return Err(io::Error::other("there is no such service"));
                }
                Ok(Reply::Failed(code)) => {
                    last = io::Error::other(format!("the name server answers {code:?}"));
                }
                Ok(Reply::Truncated) => last = io::ErrorKind::InvalidData.into(),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// The addresses of all hosts. One that cannot be resolved is left out; if none can, that is the answer.
fn resolve(targets: &[Target]) -> io::Result<Vec<Resolved>> {
    let mut found = Vec::new();
    let mut failed = None;
    for target in targets {
        match (target.host.as_str(), target.port).to_socket_addrs() {
            Ok(addresses) => found.extend(addresses.map(|address| Resolved {
                address,
                record: Some(target.record),
            })),
            Err(error) => failed = Some(error),
        }
    }
    match (found.is_empty(), failed) {
        (false, _) => Ok(found),
        (true, Some(error)) => Err(error),
        (true, None) => Err(io::Error::other("the service is not offered")),
    }
}

/// Asks one name server: over UDP, then over TCP if the answer does not fit.
fn ask(server: SocketAddr, service: &str, timeout: Duration) -> io::Result<Reply> {
    // An attacker who does not see the question has to guess it, and the socket's port.
    let id = RandomState::new().build_hasher().finish() as u16;
    let question = question(id, service)?;
    match ask_by_datagram(server, (id, service), &question, timeout)? {
        Reply::Truncated => ask_by_stream(server, (id, service), &question, timeout),
        reply => Ok(reply),
    }
}

fn question(id: u16, service: &str) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(service).map_err(io::Error::other)?;
    let question = Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(io::Error::other)
}

fn ask_by_datagram(
    server: SocketAddr,
    asked: (u16, &str),
    question: &[u8],
    timeout: Duration,
) -> io::Result<Reply> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(question)?;
    let until = Instant::now() + timeout;
    // RFC 1035 section 2.3.4; nothing longer was asked for.
    let mut bytes = [0; 512];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.recv(&mut bytes)?;
        // What answers another question, or none, is not from the name server.
        if let Some(reply) = read(&bytes[..count], asked) {
            return Ok(reply);
        }
    }
}

fn ask_by_stream(
    server: SocketAddr,
    asked: (u16, &str),
    question: &[u8],
    timeout: Duration,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    read(&bytes, asked).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads a reply to this question; `None` if it is none.
fn read(bytes: &[u8], (id, service): (u16, &str)) -> Option<Reply> {
    let packet = Packet::parse(bytes).ok()?;
    let is_reply = packet.id() == id && packet.has_flags(PacketFlag::RESPONSE);
    let [asked] = packet.questions.as_slice() else {
        return None;
    };
    if !is_reply || !asked.qname.to_string().eq_ignore_ascii_case(service) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Reply::Truncated);
    }
    if packet.rcode() != RCODE::NoError {
        return Some(Reply::Failed(packet.rcode()));
    }
    let records = packet
        .answers
        .iter()
        .filter_map(|answer| match &answer.rdata {
            RData::SRV(record) => Some(record),
            _ => None,
        });
    let targets = records.filter_map(|record| {
        let host = record.target.to_string();
        // The root: the service is decidedly not there (RFC 2782).
        (!host.is_empty() && host != "." && record.port != 0).then_some(Target {
            host,
            port: record.port,
            record: ServiceRecord {
                priority: record.priority,
                weight: record.weight,
            },
        })
    });
    Some(Reply::Targets(
        targets.take(limits::SERVICE_TARGETS_MAX).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    use super::*;

    const SERVICE: &str = "_otlp._tcp.example.org";

    fn reply(id: u16, targets: &[(&str, u16, u16, u16)]) -> Packet<'static> {
        let name = || Name::new_unchecked(SERVICE).into_owned();
        let mut packet = Packet::new_reply(id);
        let asked = Question::new(name(), TYPE::SRV.into(), CLASS::IN.into(), false);
        packet.questions.push(asked);
        for (host, port, priority, weight) in targets {
            let record = SRV {
                priority: *priority,
                weight: *weight,
                port: *port,
                target: Name::new_unchecked(host).into_owned(),
            };
            let record = ResourceRecord::new(name(), CLASS::IN, 30, RData::SRV(record));
            packet.answers.push(record);
        }
        packet
    }

    fn read_packet(packet: &Packet<'_>) -> Option<Reply> {
        read(&packet.build_bytes_vec().unwrap(), (7, SERVICE))
    }

    #[test]
    fn records_are_read_with_their_hosts_ports_priorities_and_weights() {
        let packet = reply(
            7,
            &[
                ("a.example.org", 4317, 10, 60),
                ("b.example.org", 4318, 20, 0),
            ],
        );
        let target = |host: &str, port, priority, weight| Target {
            host: host.to_owned(),
            port,
            record: ServiceRecord { priority, weight },
        };
        let expected = vec![
            target("a.example.org", 4317, 10, 60),
            target("b.example.org", 4318, 20, 0),
        ];
        assert_eq!(read_packet(&packet), Some(Reply::Targets(expected)));
    }

    #[test]
    fn what_answers_another_question_is_no_reply() {
        let good = [("a.example.org", 4317, 0, 0)];
        assert_eq!(read_packet(&reply(8, &good)), None, "another id");
        let mut question = reply(7, &good);
        question.remove_flags(PacketFlag::RESPONSE);
        assert_eq!(read_packet(&question), None, "a question");
        let mut other = reply(7, &good);
        other.questions[0].qname = Name::new_unchecked("_other._tcp.example.org");
        assert_eq!(read_packet(&other), None, "another name");
        assert_eq!(read(b"\0\x07", (7, SERVICE)), None, "no packet");
    }

    #[test]
    fn failures_and_answers_that_do_not_fit_are_told_apart() {
        let mut failed = reply(7, &[]);
        *failed.rcode_mut() = RCODE::NameError;
        assert_eq!(read_packet(&failed), Some(Reply::Failed(RCODE::NameError)));
        let mut cut = reply(7, &[]);
        cut.set_flags(PacketFlag::TRUNCATION);
        assert_eq!(read_packet(&cut), Some(Reply::Truncated));
    }

    #[test]
    fn a_service_that_is_decidedly_not_there_has_no_targets() {
        let packet = reply(7, &[("", 0, 0, 0)]);
        assert_eq!(read_packet(&packet), Some(Reply::Targets(Vec::new())));
        let refused = resolve(&[]).unwrap_err().to_string();
        assert!(refused.contains("not offered"), "{refused}");
    }

    #[test]
    fn a_question_reads_as_one_for_records_of_the_service() {
        let bytes = question(7, SERVICE).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), SERVICE);
        assert_eq!(packet.questions[0].qtype, TYPE::SRV.into());
    }
}
