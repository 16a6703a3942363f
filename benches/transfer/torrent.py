"""libtorrent over loopback, tuned: `create ROOM`, `seed ROOM PORT`, `get ROOM PORT`."""

import sys
import time

import libtorrent as lt

SETTINGS = {
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_utp": False, "enable_outgoing_utp": False, "out_enc_policy": 2, "in_enc_policy": 2,
    "allow_multiple_connections_per_ip": True, "smooth_connects": False, "no_connect_privileged_ports": False,
    "aio_threads": 2, "hashing_threads": 2, "disk_io_write_mode": 0, "disk_io_read_mode": 0,
    "max_queued_disk_bytes": 64 << 20, "send_buffer_watermark": 8 << 20, "send_buffer_low_watermark": 1 << 20,
    "recv_socket_buffer_size": 4 << 20, "send_socket_buffer_size": 4 << 20, "max_out_request_queue": 4000,
    "max_allowed_in_request_queue": 8000, "request_queue_time": 10, "whole_pieces_threshold": 20,
    "unchoke_slots_limit": -1, "rate_limit_ip_overhead": False, "alert_mask": 0, "suggest_mode": 0,
}


def main(command, room, port="0"):
    if command == "create":
        files = lt.file_storage()
        lt.add_files(files, f"{room}/data")
        torrent = lt.create_torrent(files, 1 << 20, lt.create_torrent.v2_only)
        lt.set_piece_hashes(torrent, room)
        with open(f"{room}/data.torrent", "wb") as file:
            file.write(lt.bencode(torrent.generate()))
        return
    seeds = command == "seed"
    listen = f"127.0.0.1:{port if seeds else 0}"
    session = lt.session({**SETTINGS, "listen_interfaces": listen})
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(f"{room}/data.torrent")
    parameters.save_path = room if seeds else f"{room}/torrent"
    flags = lt.torrent_flags
    parameters.flags &= ~(flags.auto_managed | flags.paused)
    parameters.flags |= flags.seed_mode if seeds else flags.update_subscribe
    torrent = session.add_torrent(parameters)
    if seeds:
        print("ready", flush=True)
        time.sleep(3600)
    torrent.connect_peer(("127.0.0.1", int(port)))
    for _ in range(60000):
        if torrent.status().is_seeding:
            return
        time.sleep(0.002)
    sys.exit("it does not get on")


main(*sys.argv[1:])
