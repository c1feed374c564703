// SPDX-License-Identifier: AGPL-3.0-or-later

// Package units turns fleet files into units of systemd. [Generate] is what
// systemd calls at boot and at each daemon-reload (systemd.generator(7)):
//
//	/etc/prefork/web.toml            [socket.http], start = "boot"
//	  prefork-web:http.socket                     listens, for prefork@web.service
//	  prefork@web.service.d/50-sockets.conf       that one gets the socket
//	  multi-user.target.wants/prefork@web.service
//	  sockets.target.wants/prefork-web:http.socket
//
// The units that are the same for each fleet are files of this folder. What
// systemd has learned since version 252 is generated too: an older one would
// complain about it.
package units
