# SPDX-License-Identifier: 0BSD
"""Counts the packets of a network interface, without being root."""

import socket

ETH_P_ALL = 3


def count(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind((interface, ETH_P_ALL))
        print("listening on", interface)
        seen = 0
        while True:
            packets.recv(65536)
            seen += 1
            print(seen, "packets on", interface)
