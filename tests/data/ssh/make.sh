#!/bin/sh
# Make the public keys in this directory anew, with OpenSSH's and OpenSSL's own tools; the private halves are thrown away.
#   NAME.pub       the key as OpenSSH writes it
#   NAME.*         the same key in other forms
#   refused/*      what OpenSSH would not accept at a login
set -eu
cd "$(dirname "$0")"
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
rm -rf -- *.pub *.rfc4716 *.pem *.rsa *.crt refused
mkdir refused

certificate() {  # certificate KEY OUT OPTION...: the self-signed certificate of a private key
    key=$1 out=$2
    shift 2
    openssl req -x509 -key "$key" -subj "/O=minprov/CN=$out" -days 3650 -out "$out" "$@"
}

for kind in rsa-1024 rsa-3072 ecdsa-256 ecdsa-384 ecdsa-521; do
    ssh-keygen -q -t "${kind%-*}" -b "${kind#*-}" -m PKCS8 -N '' -C "a $kind key" -f "$private/$kind"
    mv "$private/$kind.pub" "$kind.pub"
    ssh-keygen -e -m RFC4716 -f "$kind.pub" > "$kind.rfc4716"
    ssh-keygen -e -m PKCS8 -f "$kind.pub" > "$kind.pem"
    certificate "$private/$kind" "$kind.crt"
done
ssh-keygen -e -m PEM -f rsa-1024.pub > rsa-1024.rsa
ssh-keygen -e -m PEM -f rsa-3072.pub > rsa-3072.rsa

# ssh-keygen 9 does not export Ed25519 as PEM; openssl and ssh-keygen agree on the 32 bytes of the key.
openssl genpkey -algorithm ed25519 -out "$private/ed25519"
openssl pkey -in "$private/ed25519" -pubout -out ed25519.pem
point=$(openssl pkey -in "$private/ed25519" -pubout -outform DER | tail -c 32 | xxd -p -c 64)
blob=$(printf '0000000b7373682d6564323535313900000020%s' "$point" | xxd -r -p | base64 -w 0)
echo "ssh-ed25519 $blob a ed25519 key" > ed25519.pub
ssh-keygen -e -m RFC4716 -f ed25519.pub > ed25519.rfc4716
certificate "$private/ed25519" ed25519.crt

# A version 1 certificate has no version element before its key.
openssl req -new -key "$private/rsa-3072" -subj "/CN=v1" -out "$private/request"
openssl x509 -req -in "$private/request" -signkey "$private/rsa-3072" -days 3650 -out rsa-3072.v1.crt

openssl genpkey -quiet -algorithm rsa -pkeyopt rsa_keygen_bits:512 | openssl pkey -pubout -out refused/rsa-512.pem
openssl genpkey -quiet -algorithm rsa-pss -pkeyopt rsa_keygen_bits:2048 | openssl pkey -pubout -out refused/rsa-pss.pem
openssl genpkey -algorithm ed448 | openssl pkey -pubout -out refused/ed448.pem
openssl genpkey -algorithm x25519 | openssl pkey -pubout -out refused/x25519.pem
openssl ecparam -genkey -name secp256k1 -noout | openssl pkey -pubout -out refused/secp256k1.pem
openssl ec -in "$private/ecdsa-256" -pubout -conv_form compressed -out refused/ec-compressed.pem
openssl ec -in "$private/ecdsa-256" -pubout -param_enc explicit -out refused/ec-explicit.pem
ssh-keygen -q -t dsa -N '' -C 'a dsa key' -f "$private/dsa"
mv "$private/dsa.pub" refused/dsa.pub
ssh-keygen -e -m PKCS8 -f refused/dsa.pub > refused/dsa.pem
ssh-keygen -q -s "$private/rsa-3072" -I id -n user ed25519.pub
mv ed25519-cert.pub refused/ed25519-cert.pub

# As WireServer delivers the certificates that an ovf-env names by their thumbprints.
openssl pkcs12 -export -nokeys -in rsa-3072.crt -passout pass: -out rsa-3072.pfx
