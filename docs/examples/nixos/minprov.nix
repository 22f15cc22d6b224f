# A NixOS module: `imports = [ ./minprov.nix ];`. The static form's tarball stands beside this file.
# What minprov makes is changed at run time, so `users.mutableUsers` has to be true, and /etc/sudoers include a directory.
{ lib, pkgs, ... }:
let
  minprov = pkgs.stdenv.mkDerivation {
    pname = "minprov";
    version = "0.1.0";
    src = ./. + "/minprov-0.1.0-static-linux-${pkgs.stdenv.hostPlatform.parsed.cpu.name}.tar.gz";
    # One program that is linked to nothing.
    dontBuild = true;
    dontFixup = true;
    installPhase = ''
      install -D -m 0755 minprov $out/bin/minprov
      install -D -m 0644 -t $out/share/licenses/minprov licenses/*
      for unit in minprov.service minprov-custom-data.service minprov-ready.target; do
        install -D -m 0644 -t $out/lib/systemd/system units/$unit
        substituteInPlace $out/lib/systemd/system/$unit \
          --replace-quiet /usr/bin/minprov $out/bin/minprov
      done
    '';
  };
in
{
  systemd.packages = [ minprov ];
  systemd.services.minprov = {
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.openssh pkgs.shadow pkgs.sudo pkgs.systemd ];
  };
  environment.systemPackages = [ minprov ];
  networking.hostName = lib.mkDefault "";
  users.mutableUsers = lib.mkDefault true;
  security.sudo.extraConfig = "@includedir /etc/sudoers.d";
}
