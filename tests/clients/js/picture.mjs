// A plain picture to upload, and the size of the one that comes back.

import { crc32, deflateSync } from "node:zlib";

function chunk(type, data) {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length, 0);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
}

/** A PNG of eight bits a channel with a gradient. */
export function png(width, height) {
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2, 0, 0, 0], 8);
    const rows = Buffer.alloc(height * (1 + width * 3));
    for (let y = 0, at = 0; y < height; y++) {
        at += 1; // filter type: none
        for (let x = 0; x < width; x++) {
            rows[at++] = (x * 255) / width;
            rows[at++] = (y * 255) / height;
            rows[at++] = 128;
        }
    }
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

/** Width and height of a PNG or JPEG. */
export function sizeOf(bytes) {
    if (bytes.readUInt32BE(0) === 0x89504e47) return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
    if (bytes.readUInt16BE(0) !== 0xffd8) throw new Error(`neither PNG nor JPEG: ${bytes.subarray(0, 12).toString("hex")}`);
    for (let at = 2; at < bytes.length; at += 2 + bytes.readUInt16BE(at + 2)) {
        const marker = bytes[at + 1];
        const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
        if (frame) return [bytes.readUInt16BE(at + 7), bytes.readUInt16BE(at + 5)];
    }
    throw new Error("a JPEG without a frame");
}
