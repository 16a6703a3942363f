"""What a scenario came to: a table for the terminal, a line for a summary, and a plot."""

TITLES = {
    "map": "with maps",
    "plain": "without maps",
    "churn": "half of them late, one killed",
    "large": "twice as many",
}


def announce(name):
    print(f"\n{name}: {TITLES[name]}", flush=True)
    return True


class Result:
    """The peers of one run."""

    def __init__(self, name, goal, bound):
        self.name, self.goal, self.bound, self.copies = name, goal, bound, 0.0
        self.times, self.requests, self.bytes, self.killed = [], [0, 0], [0, 0], 0

    def add(self, swarm, begin):
        """Takes note of every peer and prints its line."""
        print("  peer   started   complete   over bound   requests in vain     bytes in vain", flush=True)
        for peer in swarm:
            name, started = peer.host.name, peer.started - begin
            if peer.killed:
                self.killed += 1
                print(f"  {name:5} {started:7.1f} s     killed", flush=True)
                continue
            if peer.complete is None:
                self.times.append(float("inf"))
                print(f"  {name:5} {started:7.1f} s  not complete", flush=True)
                continue
            took = peer.complete - begin
            self.times.append(took)
            print(f"  {name:5} {started:7.1f} s {took:8.2f} s {took / self.bound:12.3f}{self.waste(peer)}", flush=True)
        print(f"  {self.line()}", flush=True)

    def waste(self, peer):
        figures = peer.figures()
        if figures is None:
            return ""
        for index in range(2):
            self.requests[index] += figures[index]
            self.bytes[index] += figures[2 + index]
        requests, vain, received, twice = figures
        return f" {vain:8} of {requests:5} {twice / 1048576:9.2f} of {received / 1048576:.1f} MiB"

    def holds(self):
        return bool(self.times) and max(self.times) <= self.goal * self.bound

    def line(self):
        percent = lambda pair: 100 * pair[1] / pair[0] if pair[0] else 0.0
        verdict = "as wanted" if self.holds() else "TOO SLOW"
        return (
            f"{self.name}: the last of {len(self.times)} after {max(self.times) / self.bound:.3f} of the bound"
            f" {self.bound:.1f} s (wanted: {self.goal}, {verdict}); the seed sent the file {self.copies:.2f} times;"
            f" in vain {percent(self.requests):.1f} % of the requests, {percent(self.bytes):.1f} % of the bytes"
        )

    def show_line(self):
        print(self.line(), flush=True)


def draw(results, path):
    """A line of dots per run: when each peer was complete, over the bound."""
    left, right, row, top = 230, 670, 44, 40
    low, high = 0.9, max(1.6, *(max(result.times) / result.bound for result in results)) + 0.05
    x = lambda ratio: left + (right - left) * (min(ratio, high) - low) / (high - low)
    height = top + row * len(results) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{height}" viewBox="0 0 700 {height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="700" height="{height}" fill="white"/>',
        f'<text x="{left}" y="20">completion of each peer, over the lower bound</text>',
    ]
    for tenth in range(9, int(high * 10) + 1):
        at = x(tenth / 10)
        strong = "#333" if tenth == 10 else "#ddd"
        out.append(f'<line x1="{at:.1f}" y1="{top - 8}" x2="{at:.1f}" y2="{height - 32}" stroke="{strong}"/>')
        out.append(f'<text x="{at:.1f}" y="{height - 14}" text-anchor="middle">{tenth / 10:.1f}</text>')
    for index, result in enumerate(results):
        y = top + row * index + row // 2
        label = f"{len(result.times)} peers, {TITLES[result.name]}" if result.name != "large" else f"{len(result.times)} peers"
        out.append(f'<text x="8" y="{y + 4}" font-size="11">{label}</text>')
        goal = x(result.goal)
        out.append(f'<line x1="{goal:.1f}" y1="{y - 14}" x2="{goal:.1f}" y2="{y + 14}" stroke="#c33" stroke-dasharray="3 2"/>')
        for took in result.times:
            out.append(f'<circle cx="{x(took / result.bound):.1f}" cy="{y}" r="5" fill="#2a6fb0" fill-opacity="0.55"/>')
    out.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")
