//! TLS: who has the right certificate gets in, everybody else gets nothing.

use super::{Served, clients, python, run_clients};
use crate::lab::Lab;

/// Makes a certificate authority in `$1`.
const AUTHORITY: &str = "
authority() {
    mkdir -p $1
    certtool --generate-privkey --rsa --bits 2048 --outfile $1/ca-key.pem
    printf 'cn = %s\\nca\\ncert_signing_key\\nexpiration_days = 30\\n' $1 > $1/ca.info
    certtool --generate-self-signed --load-privkey $1/ca-key.pem --template $1/ca.info \\
        --outfile $1/ca-cert.pem
}
# A client's or the server's certificate $3-cert.pem in the folder $2, signed by the authority $1;
# the rest are lines of its template.
certificate() {
    ca=$1 folder=$2 who=$3
    shift 3
    mkdir -p $folder
    cp $ca/ca-cert.pem $folder/
    certtool --generate-privkey --rsa --bits 2048 --outfile $folder/$who-key.pem
    printf '%s\\n' 'cn = localhost' signing_key encryption_key \"$@\" > $folder/info
    certtool --generate-certificate --load-ca-certificate $ca/ca-cert.pem \\
        --load-ca-privkey $ca/ca-key.pem --load-privkey $folder/$who-key.pem \\
        --template $folder/info --outfile $folder/$who-cert.pem
}
set -e
authority right 2>/dev/null
authority wrong 2>/dev/null
certificate right server server tls_www_server 'dns_name = localhost' 'ip_address = 127.0.0.1' \\
    'expiration_days = 30' 2>/dev/null
certificate right good client tls_www_client 'expiration_days = 30' 2>/dev/null
certificate wrong foreign client tls_www_client 'expiration_days = 30' 2>/dev/null
certificate right late client tls_www_client 'activation_date = \"2020-01-01\"' \\
    'expiration_date = \"2020-02-01\"' 2>/dev/null
mkdir none
cp right/ca-cert.pem none/
# They trust the server; it is the server that has to turn them away.
cp right/ca-cert.pem foreign/
";

#[test]
fn only_clients_with_a_certificate_get_in() {
    let lab = Lab::new();
    clients(&lab, AUTHORITY);
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let tls = "--tls-cert server/server-cert.pem --tls-key server/server-key.pem";
    let args = format!("--listen 127.0.0.1:0 {tls} --tls-ca right/ca-cert.pem -f qed a.qed");
    let served = Served::start(&lab, &args, 1);
    assert!(served.uri().starts_with("nbds://127.0.0.1:"), "{}", served.uri());
    let port = served.port().to_owned();

    let nbdinfo = |folder: &str| {
        format!("nbdinfo --size 'nbds://localhost:{port}/?tls-certificates={folder}'")
    };
    let qemu = |folder: &str| {
        format!(
            "qemu-img info --object tls-creds-x509,id=t,endpoint=client,dir={folder} --image-opts \
             driver=nbd,host=localhost,port={port},tls-creds=t"
        )
    };
    let size = (64 << 20).to_string();
    assert_eq!(clients(&lab, &nbdinfo("good")).trim(), size);
    assert!(clients(&lab, &qemu("good")).contains(&size));
    for folder in ["none", "foreign", "late"] {
        for call in [nbdinfo(folder), qemu(folder)] {
            let ran = run_clients(&lab, &call);
            assert_eq!(ran.code, Some(1), "{folder} got in: {ran:?}");
        }
    }
    // In the clear there is not even a list.
    for call in ["nbdinfo --size", "nbdinfo --list", "qemu-img info"] {
        let ran = run_clients(&lab, &format!("{call} nbd://localhost:{port}/"));
        assert_eq!(ran.code, Some(1), "{call} in the clear: {ran:?}");
    }
    // Data goes both ways, in pieces of every size.
    clients(
        &lab,
        &format!(
            "head -c 40M /dev/urandom > x.raw
             nbdcopy x.raw 'nbds://localhost:{port}/?tls-certificates=good'
             nbdcopy 'nbds://localhost:{port}/?tls-certificates=good' - | cmp -n 41943040 - x.raw"
        ),
    );
    served.stop();
    lab.qed(["check", "-f", "qed", "a.qed"]).succeeded();
}

#[test]
fn without_an_authority_encryption_is_enough() {
    let lab = Lab::new();
    clients(&lab, AUTHORITY);
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let tls = "--tls-cert server/server-cert.pem --tls-key server/server-key.pem";
    let served = Served::start(&lab, &format!("--listen 127.0.0.1:0 {tls} -f qed a.qed"), 1);
    let port = served.port();
    for folder in ["none", "foreign"] {
        clients(&lab, &format!("nbdinfo 'nbds://localhost:{port}/?tls-certificates={folder}'"));
    }
    let plain = run_clients(&lab, &format!("nbdinfo nbd://localhost:{port}/"));
    assert_eq!(plain.code, Some(1), "{plain:?}");
    served.stop();
}

/// A client that speaks bytes, with TLS on and the export of no name: libnbd never waits for one
/// direction alone.
const BYTES: &str = "
import socket, ssl, struct
def take(size):
    data = b''
    while len(data) < size:
        part = s.recv(size - len(data))
        assert part, data
        data += part
    return data
def option(number, data=b''):
    s.sendall(b'IHAVEOPT' + struct.pack('>II', number, len(data)) + data)
    kind = 0
    while kind != 1:
        kind, size = struct.unpack('>QIII', take(20))[2:]
        take(size)
        assert kind < 1 << 31, hex(kind)
def request(command, at, size, payload=b''):
    s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, command, command, at, size) + payload)
def go():
    option(7, struct.pack('>IH', 0, 0))
s = socket.create_connection(('127.0.0.1', int(uri.strip('/').rsplit(':', 1)[1])), 60)
take(18)
s.sendall(struct.pack('>I', 3))
option(5)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations('right/ca-cert.pem')
s = context.wrap_socket(s, server_hostname='localhost', suppress_ragged_eofs=False)
";

/// A server with TLS for everybody, and its lab.
fn encrypted() -> (Lab, Served) {
    let lab = Lab::new();
    clients(&lab, AUTHORITY);
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let tls = "--tls-cert server/server-cert.pem --tls-key server/server-key.pem";
    let served = Served::start(&lab, &format!("--listen 127.0.0.1:0 {tls} -f qed a.qed"), 1);
    (lab, served)
}

#[test]
fn a_client_that_sends_before_it_reads_is_heard_under_tls() {
    let (lab, served) = encrypted();
    let script = "
go()
size = 24 << 20
request(0, 0, size)
request(1, 32 << 20, size, b'x' * size)
for _ in range(2):
    error, command = struct.unpack('>IIQ', take(16))[1:]
    assert error == 0 and (command == 1 or take(size) == bytes(size))
";
    python(&lab, served.uri(), &format!("{BYTES}{script}"));
    served.stop();
}

#[test]
fn a_server_that_is_stopped_and_continued_in_a_handshake_goes_on_with_it() {
    let (lab, served) = encrypted();
    let script = format!(
        "
import os, signal, time
option(3)
os.kill({id}, signal.SIGSTOP)
time.sleep(0.2)
os.kill({id}, signal.SIGCONT)
time.sleep(0.2)
go()
",
        id = served.id()
    );
    python(&lab, served.uri(), &format!("{BYTES}{script}"));
    served.stop();
}

#[test]
fn tls_is_ended_before_the_connection_is() {
    let (lab, mut served) = encrypted();
    // Where it is not, the last line is an error of Python's library.
    for script in ["option(2)", "go()\nrequest(2, 0, 0)"] {
        python(&lab, served.uri(), &format!("{BYTES}{script}\nassert s.recv(1) == b''"));
    }
    let script = format!("go()\nimport os\nos.kill({}, 15)\nassert s.recv(1) == b''", served.id());
    python(&lab, served.uri(), &format!("{BYTES}{script}"));
    assert_eq!(served.wait().code, Some(0));
}
