"""Which concepts of its data sets the paper looks at, by the names that the readers give them."""

from types import MappingProxyType


def _names(names: str, kind: str = "") -> tuple[str, ...]:
    return tuple(kind + name for name in names.split(","))


_OBJECTS = (
    "airplane,bicycle,bird,boat,body,book,building,bus,cap,car,cat,cup,dog,door,ear,engine,grass,"
    "hair,horse,leg,mirror,motorbike,mountain,painting,person,pottedplant,saddle,screen,sky,sofa,"
    "table,track,train,tvmonitor,wheel,wood"
)
_PARTS = (
    "arm,bag,beak,bottle,box,cabinet,ceiling,chain wheel,chair,coach,curtain,eye,eyebrow,fabric,"
    "fence,floor,foot,ground,hand,handle bar,head,headlight,light,mouth,muzzle,neck,nose,paw,plant,"
    "plate,plaything,pole,pot,road,rock,rope,shelves,sidewalk,signboard,stern,tail,torso,tree,wall,"
    "water,windowpane,wing"
)
_MATERIALS = (
    "brick,cardboard,carpet,ceramic,concrete,fabric,food,fur,glass,granite,hair,laminate,leather,"
    "metal,mirror,painted,paper,plastic-clear,plastic-opaque,rock,rubber,skin,tile,wallpaper,"
    "wicker,wood"
)
_COCO = (
    "accessory,animal,appliance,bench,book,bottle,bowl,bus,car,chair,couch,cup,dining table,"
    "electronic,food,furniture,indoor,kitchen,motorcycle,outdoor,person,pizza,potted plant,sports,"
    "train,truck,tv,umbrella,vehicle"
)
_EMOTIONS = (
    "confusion,joy,sadness,anger,love,caring,optimism,amusement,curiosity,disapproval,approval,"
    "annoyance,gratitude,admiration"
)

#: Concepts of the paper by data set, to be passed as ``concepts``.
PAPER_CONCEPTS = MappingProxyType(
    {
        "clevr": _names("blue,green,red", "color::") + _names("cube,cylinder,sphere", "shape::"),
        "coco": _names(_COCO),
        "goemotions": _names(_EMOTIONS),
        "isarcasm": ("sarcastic",),
        "opensurfaces": _names(_MATERIALS, "material::"),
        "pascal": _names(_OBJECTS, "object::") + _names(_PARTS, "part::"),
        "sarcasm": ("sarcasm",),
    }
)
