#!/usr/bin/env python3
"""Writes counters to a disk flat out, past every cache, and judges what of them is there.

usage: counters.py write DISK OFFSET FIRST REPORT STOP
       counters.py judge AREA REPORT

Each of eight processes has 16 places of 4 KiB behind OFFSET, and writes the numbers from FIRST
on to them in turn, until a write fails or the file STOP is there. REPORT then tells what was
acknowledged last. AREA is a copy of the places: a place has the last number that was acknowledged
there, or else the one that was under way when its process ended.
"""
import json
import mmap
import multiprocessing
import os
import struct
import sys

WRITERS, PLACES, PIECE = 8, 16, 4096


def content(writer, number):
    return struct.pack('<QQ', writer, number) * (PIECE // 16)


def write(disk, offset, first, stop, writer, done, error):
    piece = mmap.mmap(-1, PIECE)  # aligned, as O_DIRECT wants it
    handle = os.open(disk, os.O_WRONLY | os.O_DIRECT)
    number = first
    while not os.path.exists(stop):
        piece[:] = content(writer, number)
        place = offset + (writer * PLACES + number % PLACES) * PIECE
        try:
            os.pwrite(handle, piece, place)
        except OSError as failure:
            error[writer] = failure.errno
            return
        done[writer] = number
        number += 1


def write_all(disk, offset, first, report, stop):
    done = multiprocessing.Array('Q', WRITERS, lock=False)
    error = multiprocessing.Array('i', WRITERS, lock=False)
    writers = [multiprocessing.Process(target=write,
                                       args=(disk, offset, first, stop, writer, done, error))
               for writer in range(WRITERS)]
    for process in writers:
        process.start()
    started = False
    while any(process.is_alive() for process in writers):
        writers[0].join(0.2)
        if not started and all(done):
            started = True
            open(report + '.started', 'w').close()
        # How far it is, for who looks; never half a number.
        with open(report + '.next', 'w') as file:
            file.write(str(sum(number - first for number in done if number)))
        os.replace(report + '.next', report + '.now')
    with open(report, 'w') as file:
        json.dump({'first': first, 'done': list(done), 'error': list(error)}, file)


def judge(area, report):
    with open(report) as file:
        told = json.load(file)
    with open(area, 'rb') as file:
        area = file.read()
    wrong = 0
    for writer, last in enumerate(told['done']):
        for place in range(PLACES):
            at = (writer * PLACES + place) * PIECE
            there = area[at:at + PIECE]
            under_way = last + 1
            kept = last - (last - place) % PLACES
            good = [content(writer, kept)] if kept >= told['first'] else []
            if under_way % PLACES == place:
                good.append(content(writer, under_way))
            if kept >= told['first'] and there not in good:
                wrong += 1
                print(f'writer {writer}, place {place}: {struct.unpack("<QQ", there[:16])}, '
                      f'acknowledged was {kept}')
    print(f'{sum(told["done"]) - WRITERS * (told["first"] - 1)} writes, errors {told["error"]}')
    return wrong


if sys.argv[1] == 'write':
    write_all(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6])
else:
    sys.exit(1 if judge(sys.argv[2], sys.argv[3]) else 0)
